import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from network_zoo import ZOO, build, mixing_layers, zero_at_random
from spokeshave import models
from spokeshave.errors import InvalidArgument, NothingChanged, RewriteError, UnsupportedLayer
from spokeshave.rewrites import ConstantInput, PositionBias, shrink

PROPERTY = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FIXED_SIZE = ("lenet", "convnet", "caffenet", "vit", "mlp", "generator")


def outputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(network(x)) if isinstance(leaf, Tensor)]


def assert_same(new: nn.Module, old: nn.Module, x: Tensor, relative: float) -> None:
    for a, b in zip(outputs(new, x), outputs(old, x), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= relative * b.abs().max()


def kill(network: nn.Module, name: str, rows: list[int] | slice) -> None:
    with torch.no_grad():
        network.get_submodule(name).weight[rows] = 0  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(ZOO))
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.2, 0.5]), squeeze=st.booleans())
@PROPERTY
def test_shrunk_network_computes_the_same_in_float64(name, seed, share, squeeze):
    network, example = build(name, seed)
    zero_at_random(network, seed, share)
    network, example = network.double(), example.double()
    try:
        smaller, report = shrink(network, example, squeeze=squeeze, tolerance=1e-9)
    except NothingChanged:
        return
    except RewriteError as error:
        assert "no longer depends on its input" in str(error)
        for a, b in zip(outputs(network, example), outputs(network, 3 * torch.randn_like(example)), strict=True):
            torch.testing.assert_close(a, b)
        return
    assert report.max_relative_error < 1e-9
    for batch in (1, 4):
        assert_same(smaller, network, torch.randn(batch, *example.shape[1:], dtype=torch.float64), 1e-9)
    if name not in FIXED_SIZE:
        bigger = [size + 2 for size in example.shape[2:]]
        assert_same(smaller, network, torch.randn(2, *example.shape[1:2], *bigger, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_shrunk_network_computes_the_same_in_float32(name):
    for seed in range(20_000, 20_004):
        network, example = build(name, seed)
        zero_at_random(network, seed, 0.3)
        try:
            smaller, _ = shrink(network, example)
        except RewriteError:
            continue
        assert_same(smaller, network, torch.randn(3, *example.shape[1:]), 1e-5)


def removable_filters(network: nn.Module, name: str, example: Tensor) -> int:
    """Brute force: filters that hold still for random inputs, or whose disturbance never reaches the output."""
    layer = network.get_submodule(name)
    x = torch.randn(32, *example.shape[1:], dtype=torch.float64)
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    reference = outputs(network, x)[0]
    handle.remove()
    count = 0
    for place in range(seen[0].shape[1]):
        still = seen[0][:, place].std(dim=0).max() < 1e-12 and seen[0][:, place].std() < 1e-12

        def disturb(_module, _inputs, out, place=place):
            out = out.clone()
            out[:, place] = 100 * torch.randn_like(out[:, place])
            return out

        handle = layer.register_forward_hook(disturb)
        reaches = not torch.allclose(outputs(network, x)[0], reference, atol=1e-12)
        handle.remove()
        count += int(still or not reaches)
    return count


@pytest.mark.parametrize("name", ["lenet", "mlp", "conv1d", "convnet"])
@pytest.mark.parametrize("seed", range(4))
def test_everything_that_brute_force_finds_removable_is_removed(name, seed):
    network, example = build(name, seed)
    network, example = network.double(), example.double()
    layers = mixing_layers(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in list(layers.values())[:-1]:
            module.weight[torch.rand(len(module.weight), generator=generator) < 0.4] = 0  # type: ignore[index, arg-type]
        first_hidden = list(layers.values())[1]
        first_hidden.weight[:, :2] = 0  # type: ignore[index]
    _, report = shrink(network, example, squeeze=False)
    kept = {layer.name: layer.filters_kept for layer in report.layers}
    for layer in list(layers)[:-1]:
        total = layers[layer].weight.shape[0]  # type: ignore[union-attr]
        if name == "convnet":
            # ReLU and pooling may hold a channel still that brute force, at the convolution, sees move
            assert kept[layer] <= total - removable_filters(network, layer, example)
        else:
            assert kept[layer] == total - removable_filters(network, layer, example)


def test_parameters_fall_as_counted_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False)).eval()
    kill(network, "0", [0, 5])
    smaller, report = shrink(network, torch.randn(1, 3, 9, 7), squeeze=False)
    # 6 filters of 27 + 6 biases, 12 of batch normalisation, 4 x 6 x 9, and 4 new biases for the folded constants
    assert sum(p.numel() for p in smaller.parameters()) == 6 * 28 + 12 + 4 * 6 * 9 + 4
    assert report.parameters_before == 8 * 28 + 16 + 4 * 8 * 9


def test_a_filter_that_nobody_reads_goes_though_it_is_alive():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    with torch.no_grad():
        network[2].weight[:, 3] = 0
    smaller, report = shrink(network, torch.randn(1, 3, 5, 6))
    assert report.layers[0].filters_kept == 7 and report.layers[1].channels_kept == 7
    assert isinstance(smaller.get_submodule("2"), nn.Conv2d)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_dead_filters_with_bias_are_folded_at_every_size(padding, kind):
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), kind(6, 4, 5, stride=2, padding=padding)).double()
    kill(network, "0", [1, 4])
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([0.1, 0.7, -0.2, 0.3, -1.0, 0.5]))
    smaller, report = shrink(network, torch.randn(1, 2, 9, 9).double())
    assert report.layers[1].channels_kept == 4
    assert isinstance(smaller.get_submodule("2"), ConstantInput) == (padding > 0 or kind is nn.ConvTranspose2d)
    for size in ((9, 9), (12, 17), (7, 30)):
        assert_same(smaller, network, torch.randn(2, 2, *size).double(), 1e-12)


def test_dead_filters_that_send_zero_leave_no_trace():
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, bias=False))
    kill(network, "0", [1])
    with torch.no_grad():
        network[0].bias[1] = -1.0
    smaller, _ = shrink(network, torch.randn(1, 2, 9, 9))
    last = smaller.get_submodule("2")
    assert type(last) is nn.Conv2d and last.bias is None


def test_positions_that_differ_are_stored_where_the_network_has_one_size_and_kept_elsewhere():
    def make(head: nn.Module) -> nn.Sequential:
        body = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3, 1, padding=1), nn.Conv2d(4, 3, 3), head]
        network = nn.Sequential(
            *body, nn.Flatten(), nn.Linear(3 * 16 if isinstance(head, nn.Identity) else 3, 2)
        ).double()
        kill(network, "0", [0])
        with torch.no_grad():
            network[0].bias[0] = 1.0
        return network

    fixed = make(nn.Identity())
    smaller, report = shrink(fixed, torch.randn(1, 2, 8, 8).double())
    assert report.layers[0].filters_kept == 3 and isinstance(smaller.get_submodule("3"), PositionBias)
    with pytest.raises(RuntimeError, match="shrink the model again at this size"):
        smaller(torch.randn(1, 2, 9, 8).double())
    with pytest.raises(NothingChanged):
        shrink(make(nn.AdaptiveAvgPool2d(1)), torch.randn(1, 2, 8, 8).double())


def test_dead_residual_branches_disappear():
    network, example = build("resnet", 1)
    kill(network, "layers.1.conv2", slice(None))
    kill(network, "layers.3.conv2", slice(None))
    with torch.no_grad():
        network.get_submodule("layers.3.bn2").bias.zero_()  # type: ignore[union-attr, operator]
        network.get_submodule("layers.3.bn2").running_mean.zero_()  # type: ignore[union-attr, operator]
    smaller, report = shrink(network, example)
    gone = {f"layers.{block}.{part}" for block in (1, 3) for part in ("conv1", "bn1", "conv2", "bn2")}
    assert set(report.removed_branches) == gone
    assert not gone & {name for name, _ in smaller.named_modules()}
    constants = [name for name, _ in smaller.named_buffers() if name.startswith("constant")]
    assert constants == ["constant_layers_1_bn2"], "the branch that sends zero needs no constant"
    assert_same(smaller, network, torch.randn(3, 3, 17, 10), 1e-5)


def test_dead_inception_branch_leaves_the_concatenation():
    network, example = build("inception", 2)
    kill(network, "b3b", slice(None))
    smaller, report = shrink(network, example)
    assert set(report.removed_branches) == {"b3a", "b3b"}
    assert smaller.get_submodule("head").weight.shape[1] == 12  # type: ignore[union-attr]


def test_depthwise_and_shuffled_channels_are_really_removed():
    network, example = build("mobilenet", 0)
    kill(network, "features.3.conv.0", [0, 3, 7])
    _, report = shrink(network, example)
    kept = {layer.name: layer for layer in report.layers}
    assert kept["features.3.conv.3"].weight_shape_after == (9, 1, 3, 3)
    network, example = build("shufflenet", 0)
    kill(network, "reduce", [0, 7, 9])  # one a conv group, before and behind the shuffle
    with torch.no_grad():
        network.reduce.bias[[0, 7, 9]] = -1.0  # type: ignore[union-attr, index]
        network.depthwise.weight[[0, 5, 10]] = 0  # type: ignore[union-attr, index]
    _, report = shrink(network, example)
    kept = {layer.name: layer for layer in report.layers}
    assert kept["reduce"].filters_kept == 9 and kept["depthwise"].filters_kept == 9


def test_conv_groups_stay_equally_large():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    kill(network, "1", [0, 1, 4])
    smaller, report = shrink(network, torch.randn(1, 3, 6, 6))
    assert report.layers[1].weight_shape_after == (6, 4, 3, 3)
    kill(network, "1", slice(0, 4))
    smaller, report = shrink(network, torch.randn(1, 3, 6, 6))
    assert report.layers[1].weight_shape_after == (3, 4, 3, 3)
    assert smaller.get_submodule("1").groups == 1


def test_the_model_is_left_as_it_was():
    network, example = build("unet", 3)
    network.train()
    network.down2.eval()  # type: ignore[union-attr]
    kill(network, "down1.0", [0])
    network(example).sum().backward()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    gradients = {key: None if p.grad is None else p.grad.clone() for key, p in network.named_parameters()}
    modes = {key: module.training for key, module in network.named_modules()}
    random = torch.get_rng_state()
    smaller, _ = shrink(network, example)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert {key: module.training for key, module in network.named_modules()} == modes
    for key, parameter in network.named_parameters():
        gradient = gradients[key]
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]
    assert smaller.training and smaller.get_submodule("down1.0").training
    assert not smaller.get_submodule("down2.1").training
    assert not any(a is b for a in smaller.parameters() for b in network.parameters())


def test_the_shrunk_network_trains():
    network, example = build("lenet", 0)
    kill(network, "conv2", [0, 1])
    smaller, _ = shrink(network, example)
    smaller.train()
    assert any(isinstance(module, nn.Dropout) for module in smaller.modules()), "functional dropout must come back"
    smaller(torch.randn(4, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in smaller.parameters())


def test_pruned_and_reparametrised_layers_are_understood():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    nn.utils.prune.ln_structured(network[0], "weight", 0.5, n=2, dim=0)
    nn.utils.parametrizations.weight_norm(network[2])
    smaller, report = shrink(network, torch.randn(1, 3, 8, 8))
    assert report.layers[0].filters_kept == 4
    assert_same(smaller, network, torch.randn(2, 3, 9, 9), 1e-5)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


def test_a_part_that_cannot_be_traced_is_kept_whole_and_named():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), Branching(), nn.Conv2d(4, 2, 1))
    kill(network, "0", [1, 2])
    kill(network, "2", [0])
    _, report = shrink(network, torch.randn(1, 3, 12, 12))
    assert report.layers[0].filters_kept == 6 and report.layers[1].filters_kept == 4
    assert any(note.startswith("3 (Branching)") for note in report.notes)
    with pytest.raises(UnsupportedLayer, match="Branching: its own forward cannot be traced"):
        shrink(Branching(), torch.randn(1, 4, 8, 8))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> dict[str, Tensor]:
        z = self.a(x) + self.b(y)
        return {"out": self.out(torch.relu(z if mask is None else z * mask)) * scale}


def test_several_inputs_defaults_and_structured_outputs():
    network = TwoInputs()
    kill(network, "a", [0, 1])
    kill(network, "b", [1, 2])
    smaller, report = shrink(network, (torch.randn(3, 4), torch.randn(3, 5)))
    assert [layer.filters_kept for layer in report.layers] == [5, 5, 2]
    x, y = torch.randn(7, 4), torch.randn(7, 5)
    torch.testing.assert_close(smaller(x, y)["out"], network(x, y)["out"])


def test_nothing_to_remove_says_why():
    network, example = build("lenet", 0)
    with pytest.raises(NothingChanged, match=r"Smallest filter norms: ip2: 0\.\d+.*exactly zero"):
        shrink(network, example)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    kill(network, "0", [0])
    with pytest.raises(NothingChanged, match=r"0: 1 \(GroupNorm\) needs all channels"):
        shrink(network, torch.randn(1, 3, 8, 8))


def test_a_network_that_ignores_its_input_is_refused():
    network, example = build("lenet", 0)
    kill(network, "conv2", slice(None))
    with pytest.raises(RewriteError, match="every path from input to output was zeroed"):
        shrink(network, example)


class AlwaysRandom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(nn.functional.dropout(self.a(x)))


def test_bad_arguments_and_random_models_are_refused():
    network = AlwaysRandom()
    kill(network, "a", [0])
    with pytest.raises(RewriteError, match="different outputs for the same input"):
        shrink(network, torch.randn(2, 4))
    with pytest.raises(UnsupportedLayer, match="does not run on the example"):
        shrink(network, torch.randn(2, 5))
    with pytest.raises(InvalidArgument, match="example"):
        shrink(network, (1, 2))
    with pytest.raises(InvalidArgument, match="tolerance"):
        shrink(network, torch.randn(2, 4), tolerance=0.0)


def test_half_precision_gets_a_tolerance_of_its_own():
    network, example = build("resnet", 5)
    kill(network, "layers.0.conv1", [0, 1])
    smaller, _ = shrink(network.bfloat16(), example.bfloat16())
    assert smaller.get_submodule("layers.0.conv1").weight.dtype is torch.bfloat16  # type: ignore[union-attr]


def test_report_counts_columns_and_survives_json():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    with torch.no_grad():
        network[0].weight[0] = 0
        network[2].weight.view(3, -1)[:, 9:12] = 0
    _, report = shrink(network, torch.randn(1, 2, 9, 9), squeeze=False)
    second = report.layers[1]
    assert (second.channels_kept, second.columns_kept, second.columns_total) == (3, 24, 36)
    again = json.loads(json.dumps(report.to_dict()))
    assert again["layers"][0]["filters_kept"] == 3 and again["parameters_after"] == report.parameters_after


def test_shrunk_networks_export():
    network, example = build("convnet", 0)
    kill(network, "conv1", [0, 1, 2])
    smaller, _ = shrink(network, example)
    exported = torch.export.export(smaller.eval(), (example,))
    torch.testing.assert_close(exported.module()(example), network(example), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (models.LeNet, (1, 1, 28, 28)),
        (models.MLP, (1, 1, 28, 28)),
        (models.ConvNet, (1, 3, 32, 32)),
        (lambda: models.ResNetCifar(20), (1, 3, 32, 32)),
    ],
    ids=["lenet", "mlp", "convnet", "resnet-20"],
)
def test_networks_of_the_papers_shrink_exactly(make, shape):
    network = make().eval()
    with torch.no_grad():
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight[torch.rand(len(module.weight)) < 0.4] = 0
                if module.bias is not None:
                    module.bias.normal_(std=0.1)
    smaller, report = shrink(network, torch.randn(shape))
    assert report.parameters_after < 0.65 * report.parameters_before
    assert_same(smaller, network, torch.randn(3, *shape[1:]), 1e-5)


@pytest.mark.parametrize("border", [nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(3, 1, padding=1)], ids=["conv", "pool"])
def test_what_is_uniform_only_at_the_size_of_the_example_is_not_taken_for_a_constant(border):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), border, nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    with torch.no_grad():
        network[0].weight[:2] = 0
        network[2].weight[:, 3] = 0
        if isinstance(border, nn.Conv2d):
            border.weight[:2, 2:] = 0
    smaller, _ = shrink(network, torch.randn(1, 1, 1, 1).double())
    assert_same(smaller, network, torch.randn(2, 1, 6, 5).double(), 1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_or_an_example_that_is_not_finite_is_refused_by_name(value: float) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight[1] = 0
    with pytest.raises(InvalidArgument, match="example: expected finite"):
        shrink(net, torch.full((1, 4), value))
    with torch.no_grad():
        net[2].weight[0, 0] = value
    with pytest.raises(InvalidArgument, match=r"2\.weight of the model"):
        shrink(net, torch.zeros(1, 4))


def test_an_infinite_mask_is_no_reason_to_refuse() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net.register_buffer("mask", torch.full((2, 2), float("-inf")))
    with torch.no_grad():
        net[0].weight[1] = 0
    assert shrink(net, torch.zeros(1, 4))[1].layers[0].filters_kept == 2
