import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils._pytree import tree_leaves

from network_zoo import ZOO, build
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.tiles import Tiling
from spokeshave.targets.crossbar.converters import Converters
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar, mappable_layers
from spokeshave.targets.crossbar.wires_and_area import price


@pytest.mark.parametrize("name", ZOO)
def test_noise_off_is_the_float_network(name):
    net, example = build(name, 3)
    net.eval()
    inputs = example if isinstance(example, tuple) else (example,)
    for tiling in Tiling:
        with torch.no_grad():
            got, wanted = Crossbar(size=(16, 12), tiling=tiling).map(net)(*inputs), net(*inputs)
        for a, b in zip(tree_leaves(got), tree_leaves(wanted), strict=True):
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_conductances_hold_the_weights():
    module = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, -1.0, 0.0], [2.0, 0.25, -2.0]]))
    device = Memristor(g_min_s=2e-5)
    (layer,) = Crossbar(size=(2, 2), device=device).map(nn.Sequential(module)).layers.values()
    plus, minus = (layer.grid.join(g[0]).T.detach() for g in (layer.g_plus, layer.g_minus))
    torch.testing.assert_close(plus, 0.2 + 0.8 * module.weight.detach().clamp(min=0) / 2)
    torch.testing.assert_close(minus, 0.2 + 0.8 * (-module.weight.detach()).clamp(min=0) / 2)
    assert float(layer.scale) == 2.5
    assert not layer.g_plus[0, 1, 0, 1].any()  # the fourth input has no cell
    torch.testing.assert_close(layer.weight, module.weight)


def test_mapping_depends_on_the_seed_alone():
    net, _ = build("lenet", 0)
    state = torch.get_rng_state()
    device = Memristor(variation=0.1, stuck_on=0.01)
    first, again, other = (Crossbar(device=device, seed=seed).map(net) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers["conv1"].g_plus, other.layers["conv1"].g_plus)
    row = first.report.layers[0]
    assert row.level_error == pytest.approx(0, abs=1e-12) and 0.05 < row.device_error < 0.3


def test_levels_that_do_not_hold_the_weights_are_reported_or_refused():
    net = nn.Sequential(nn.Linear(30, 20))
    chip = Crossbar(device=Memristor.one_level())
    row = chip.map(net).report.layers[0]
    assert 0.1 < row.level_error < 0.6 and row.device_error == pytest.approx(row.level_error, rel=1e-4)
    with pytest.raises(InvalidArgument, match="0: its weights"):
        Crossbar(device=Memristor.one_level(), strict=True).map(net)
    with torch.no_grad():
        net[0].weight.copy_(0.3 * net[0].weight.sign() * (net[0].weight.abs() > 0.05))
    exact = Crossbar(device=Memristor.one_level(), strict=True).map(net)
    x = torch.randn(4, 30)
    torch.testing.assert_close(exact(x), net(x))


def test_factorized_layers_are_two_layers():
    net = nn.Sequential(FactorizedLayer.of("0", nn.Conv2d(3, 8, 3), 4))
    mapped = Crossbar(size=(8, 8)).map(net)
    assert set(mapped.layers) == {"0.basis", "0.combination"}
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(mapped(x), net(x), atol=1e-5, rtol=1e-5)


def test_weights_of_a_parametrization_are_taken_as_they_are():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)))
    x = torch.randn(3, 5)
    torch.testing.assert_close(Crossbar(size=(3, 3)).map(net)(x), net(x))


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def test_what_stays_digital_is_said_with_its_reason():
    net = nn.Sequential(nn.Linear(2, 2), Doubled(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    held, digital = mappable_layers(net, ["3"])
    assert list(held) == ["0"]
    assert [layer.name for layer in digital] == ["1", "2", "3"] and "excluded" in digital[2].why
    x = torch.randn(2, 2)
    torch.testing.assert_close(Crossbar(exclude=("3",)).map(net.eval())(x), net(x))
    with pytest.raises(InvalidArgument, match="exclude"):
        Crossbar(exclude=("fc*",)).map(net)


def test_what_cannot_be_mapped_is_refused():
    with pytest.raises(UnsupportedLayer, match="no layer to map"):
        Crossbar().map(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(1, 1, 2)))
    broken = nn.Linear(2, 2)
    broken.weight.data[0, 0] = math.nan
    with pytest.raises(InvalidArgument, match="1: expected finite"):
        Crossbar().map(nn.Sequential(nn.ReLU(), broken))
    with pytest.raises(InvalidArgument, match="example"):
        Crossbar(converters=Converters(8)).map(nn.Linear(2, 2))
    with pytest.raises(InvalidArgument, match="size"):
        Crossbar(size=(0, 3))
    with pytest.raises(InvalidArgument, match="wire_resistance_ohm"):
        Crossbar(wire_resistance_ohm=math.inf)


def test_layers_of_zeros_and_one_layer_alone():
    net = nn.Linear(4, 3)
    nn.init.zeros_(net.weight)
    x = torch.randn(2, 4)
    torch.testing.assert_close(Crossbar(device=Memristor.one_level()).map(net)(x), net(x))


def test_layers_with_hooks_or_a_forward_of_their_own_stay_digital():
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)))
    net[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    net[2].register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    net[3].forward = torch.sin
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net[4])
    x = torch.randn(2, 3)
    mapped = Crossbar().map(net)
    assert [layer.name for layer in mapped.report.layers] == ["0"]
    assert [layer.why for layer in mapped.report.digital] == [
        "it has hooks of its own", "it has hooks of its own", "it computes something of its own",
        "it has hooks of its own",
    ]  # fmt: skip
    torch.testing.assert_close(mapped(x), net(x))


def test_mapping_and_pricing_leave_a_network_in_training_as_it_was():
    net = nn.Sequential(nn.Linear(6, 5), parametrizations.spectral_norm(nn.Linear(5, 4))).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    mapped, cost = Crossbar().map(net), price(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert mapped.report.digital == () and cost.not_counted == () and len(cost.layers) == 2
    assert net[1].training and mapped.layers["1"].training
    x = torch.randn(2, 6)
    torch.testing.assert_close(mapped(x), net.eval()(x))


def test_layers_without_weights_and_broken_biases_are_named():
    with pytest.raises(InvalidArgument, match="0: it has no weights yet: run the model once first"):
        Crossbar().map(nn.Sequential(nn.LazyLinear(3)))
    broken = nn.Linear(2, 2)
    broken.bias.data[0] = math.inf
    with pytest.raises(InvalidArgument, match="1: expected finite biases"):
        Crossbar().map(nn.Sequential(nn.ReLU(), broken))
    chip = Crossbar()
    object.__setattr__(chip, "size", (2.5, 3))  # past the types' check of the tests
    with pytest.raises(InvalidArgument, match="whole numbers"):
        chip.__post_init__()
