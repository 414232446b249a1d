import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.rewrites import CroppedConv2d, SqueezedConv2d, SqueezedLinear, shrink
from spokeshave.rewrites.squeeze import (
    copy_time,
    dense_time,
    lowered_masks,
    squeeze_convolution,
    squeeze_layers,
    squeeze_linear,
)
from spokeshave.structures.graph_tracing import trace


def zero_columns(layer: nn.Conv2d, kept: int, seed: int = 0) -> None:
    order = torch.randperm(layer.weight[0].numel(), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        layer.weight.view(len(layer.weight), -1)[:, order[kept:]] = 0


def test_masks_are_those_of_the_lowered_matrix_by_conv_group():
    weight = torch.zeros(4, 2, 1, 2)
    weight[0, 1, 0, 1] = weight[3, 0, 0, 0] = 1
    masks = lowered_masks(weight, 2)
    assert masks.rows.tolist() == [True, False, False, True]
    assert masks.columns.tolist() == [[False, False, False, True], [True, False, False, False]]


@pytest.mark.parametrize("kept", [7, 14])
def test_lenet_conv2_with_few_columns_is_gathered(kept):
    layer = nn.Conv2d(20, 50, 5)
    zero_columns(layer, kept)
    assert isinstance(squeeze_convolution(layer, (12, 12), (8, 8)), SqueezedConv2d)
    zero_columns(layer, 500)
    assert squeeze_convolution(nn.Conv2d(20, 50, 5), (12, 12), (8, 8)) is None


def test_most_columns_kept_stays_dense():
    layer = nn.Conv2d(48, 128, 5, padding=2)
    zero_columns(layer, 900)
    assert squeeze_convolution(layer, (27, 27), (27, 27)) is None
    zero_columns(layer, 100)
    assert isinstance(squeeze_convolution(layer, (27, 27), (27, 27)), SqueezedConv2d)


def test_a_zero_border_of_the_kernel_gives_a_smaller_dense_kernel():
    layer = nn.Conv2d(16, 16, 5, padding=2)
    with torch.no_grad():
        layer.weight[:, :, [0, 4]] = 0
        layer.weight[:, :, :, [0, 4]] = 0
    cropped = squeeze_convolution(layer, (16, 16), (16, 16))
    assert isinstance(cropped, CroppedConv2d) and cropped.kernel_size == (3, 3) and cropped.padding == (1, 1)
    x = torch.randn(2, 16, 9, 8)
    torch.testing.assert_close(cropped(x), layer(x), rtol=1e-4, atol=1e-5)


def test_unread_channels_that_must_stay_are_skipped_by_one_gather():
    layer = nn.Conv2d(128, 128, 3, padding=1)
    with torch.no_grad():
        layer.weight[:, 16:] = 0
    cropped = squeeze_convolution(layer, (14, 14), (14, 14))
    assert isinstance(cropped, CroppedConv2d) and cropped.in_channels == 16
    x = torch.randn(1, 128, 6, 7)
    torch.testing.assert_close(cropped(x), layer(x), rtol=1e-4, atol=1e-5)


def test_the_first_layer_of_a_perceptron_reads_only_used_pixels():
    network = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    with torch.no_grad():
        network[0].weight[:, torch.randperm(784)[434:]] = 0
    smaller, report = shrink(network, torch.randn(1, 784))
    first = smaller.get_submodule("0")
    assert isinstance(first, SqueezedLinear) and first.in_features == 434
    assert (report.layers[0].channels_kept, report.layers[0].squeezed) == (434, True)
    assert squeeze_linear(nn.Linear(784, 300)) is None
    small = nn.Linear(8, 4)
    with torch.no_grad():
        small.weight[:, :4] = 0
    assert squeeze_linear(small) is None


def test_forms_that_the_squeeze_does_not_know_stay_dense():
    for layer in (
        nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect"),
        nn.Conv2d(8, 8, 4, padding="same"),
        nn.Conv2d(16, 16, 5, padding=2, groups=16),
    ):
        with torch.no_grad():
            layer.weight[..., 1:] = 0
        assert squeeze_convolution(layer, (16, 16), (16, 16)) is None


def test_predictions_grow_with_work():
    assert dense_time(1e6, 9) < dense_time(2e6, 9) and copy_time(10) < copy_time(1000)


def test_squeezed_layers_inside_shrink_compute_the_same():
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.Conv2d(64, 96, 3, padding=1))
    zero_columns(network[2], 40)
    smaller, report = shrink(network, torch.randn(1, 3, 14, 14))
    assert isinstance(smaller.get_submodule("2"), SqueezedConv2d)
    assert report.layers[1].squeezed and report.layers[1].columns_kept == 40
    x = torch.randn(5, 3, 20, 11)
    torch.testing.assert_close(smaller(x), network(x), rtol=1e-4, atol=1e-5)
    plain = network[2].weight.detach().numpy()
    squeezed = smaller.get_submodule("2")
    assert isinstance(squeezed, SqueezedConv2d) and np.array_equal(squeezed.dense_weight().numpy(), plain)


class WeightRead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.conv.weight.mean()


def test_a_layer_whose_weight_forward_reads_is_not_squeezed():
    network = WeightRead()
    with torch.no_grad():
        network.conv.weight[:, :, 1:] = 0
    graph = trace(network, torch.randn(1, 32, 16, 16)).graph
    assert squeeze_layers(graph) == []
    assert torch.equal(graph.get_submodule("conv").weight, network.conv.weight)  # type: ignore[arg-type]
