"""CifarNet: its layers, its initial weights, and its normalization against torch's."""

import pytest
import torch
from torch import nn

from spokeshave.models import AcrossChannelNorm, CifarNet


def test_shapes_layer_by_layer() -> None:
    model = CifarNet()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes == {
        "conv1.weight": (64, 3, 5, 5), "conv1.bias": (64,), "conv2.weight": (64, 64, 5, 5), "conv2.bias": (64,),
        "fc3.weight": (384, 6 * 6 * 64), "fc3.bias": (384,), "fc4.weight": (192, 384), "fc4.bias": (192,),
        "fc5.weight": (10, 192), "fc5.bias": (10,),
    }  # fmt: skip
    assert set(model.state_dict()) == set(shapes)
    assert model.pool1(torch.zeros(1, 64, 24, 24)).shape == (1, 64, 12, 12)
    assert CifarNet(classes=3, size=28)(torch.zeros(2, 3, 28, 28)).shape == (2, 3)


def test_initial_weights_are_truncated_gaussians() -> None:
    torch.manual_seed(0)
    model = CifarNet()
    # A Gaussian cut at two deviations keeps 0.88 of its deviation.
    for name, std, bias in (("conv1", 0.05, 0), ("conv2", 0.05, 0.1), ("fc3", 0.04, 0.1), ("fc4", 0.04, 0.1)):
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.03)
        assert weight.abs().max().item() <= 2 * std
        assert model.get_parameter(f"{name}.bias").unique().tolist() == pytest.approx([bias])
    assert model.fc5.weight.std().item() == pytest.approx(0.8796 / 192, rel=0.05)


@pytest.mark.parametrize(("channels", "size", "alpha"), [(64, 9, 1e-3), (5, 3, 2.0), (4, 9, 0.5), (1, 1, 1.0)])
def test_normalization_is_torchs(channels: int, size: int, alpha: float) -> None:
    features = torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    ours, theirs = AcrossChannelNorm(channels, size, alpha), nn.LocalResponseNorm(size, alpha, 0.75, 1.0)
    first, second = features.clone().requires_grad_(), features.clone().requires_grad_()
    torch.testing.assert_close(ours(first), theirs(second), rtol=1e-5, atol=1e-6)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (ours(first) * weights).sum().backward()
    (theirs(second) * weights).sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)


def test_normalization_has_neither_parameters_nor_state() -> None:
    norm = AcrossChannelNorm(8)
    assert not list(norm.parameters()) and not norm.state_dict()
