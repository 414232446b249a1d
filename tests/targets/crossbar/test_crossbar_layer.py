"""The layer against the plainest simulation: one loop over tiles, wires and cells of float64 numbers."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.targets.crossbar.converters import Converters, Range, Readout
from spokeshave.targets.crossbar.crossbar_layer import CrossbarLayer, wire_distances
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar


def quantised(values: np.ndarray, bits: int | None, limit: float) -> np.ndarray:
    if bits is None:
        return values
    steps = 2 ** (bits - 1) - 1
    return np.round(np.clip(values / limit, -1, 1) * steps) / steps * limit


def simulated(layer: CrossbarLayer, x: np.ndarray) -> np.ndarray:
    """Outputs of a linear layer on crossbars, positions x outputs."""
    grid, converters, device = layer.grid, layer.converters, layer.device
    per_call = converters.range is Range.PER_CALL
    x = quantised(x, converters.dac_bits, np.abs(x).max() if per_call else float(layer.input_range))
    out = np.zeros((len(x), grid.outputs))
    tiles = []
    for row in range(grid.rows):
        for column in range(grid.columns):
            both = []
            for conductances in (layer.g_plus, layer.g_minus):
                g = conductances[0, row, column].detach().double().numpy() * device.g_max_s
                for i in range(grid.tile_inputs):
                    for o in range(grid.tile_outputs):
                        far = (o + 1) + (grid.tile_inputs - i)
                        g[i, o] /= 1 + g[i, o] * layer.wire_resistance_ohm * far
                wires = np.zeros((len(x), grid.tile_inputs))
                part = x[:, row * grid.tile_inputs : (row + 1) * grid.tile_inputs]
                wires[:, : part.shape[1]] = part
                both.append(wires @ g * float(layer.scale) / device.g_max_s)
            tiles.append((column, both))
    pair = converters.readout is Readout.PAIR
    sums = [[plus - minus] if pair else [plus, minus] for _, (plus, minus) in tiles]
    limit = max(np.abs(s).max() for both in sums for s in both) if per_call else float(layer.tile_range)
    for (column, _), both in zip(tiles, sums, strict=True):
        read = [quantised(s, converters.adc_bits, limit) for s in both]
        total = read[0] if pair else read[0] - read[1]
        start = column * grid.tile_outputs
        width = min(grid.tile_outputs, grid.outputs - start)
        out[:, start : start + width] += total[:, :width]
    return out + (0 if layer.bias is None else layer.bias.detach().double().numpy())


DEVICES = {
    "ideal": Memristor(),
    "one level": Memristor.one_level(20.0),
    "imperfect": Memristor.n_level(4, 10.0, variation=0.2, stuck_on=0.05, stuck_off=0.05),
}
CONVERTERS = {
    "exact": Converters(),
    "dac": Converters(dac_bits=4),
    "adc": Converters(adc_bits=5),
    "both, per call": Converters(6, 6, Range.PER_CALL),
    "each": Converters(None, 6, readout=Readout.EACH),
    "each, per call": Converters(5, 6, Range.PER_CALL, Readout.EACH),
}


def mapped(module: nn.Module, x: torch.Tensor, **settings) -> CrossbarLayer:
    (layer,) = Crossbar(**settings).map(nn.Sequential(module), x).layers.values()
    return layer


@pytest.mark.parametrize("size", [(4, 3), (16, 16)], ids=["several tiles", "one tile"])
@pytest.mark.parametrize("converters", CONVERTERS)
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_plain_simulation(device, converters, size):
    torch.manual_seed(5)
    module, x = nn.Linear(11, 7).double(), torch.randn(9, 11).double()
    layer = mapped(
        module, x, size=size, device=DEVICES[device], converters=CONVERTERS[converters], wire_resistance_ohm=300.0
    )
    x = 1.5 * x  # larger than what was calibrated, so that converters cut off
    wanted = torch.from_numpy(simulated(layer, x.numpy()))
    torch.testing.assert_close(layer(x).detach(), wanted)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), wanted)
        assert not layer(x[:0]).numel()


@pytest.mark.parametrize("converters", CONVERTERS)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_the_linear_layer_at_every_place(converters, groups):
    torch.manual_seed(6)
    module, x = nn.Conv2d(4, 6, 3, padding=1, groups=groups).double(), torch.randn(3, 4, 6, 5).double()
    layer = mapped(module, x, size=(5, 4), device=DEVICES["imperfect"], converters=CONVERTERS[converters])
    if CONVERTERS[converters].range is Range.PER_CALL and groups > 1:
        return  # a group of its own would have a range of its own
    x = 1.5 * x
    patches = torch.nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(3 * 30, groups, -1)
    wanted = []
    for group in range(groups):
        one = copy.deepcopy(layer)
        one.g_plus, one.g_minus = (nn.Parameter(g[group : group + 1]) for g in (layer.g_plus, layer.g_minus))
        one.bias = nn.Parameter(layer.bias.chunk(groups)[group])
        wanted.append(simulated(one, patches[:, group].numpy()))
    places = torch.from_numpy(np.concatenate(wanted, 1)).reshape(3, 6, 5, 6).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), places)
    torch.testing.assert_close(layer(x).detach(), places)


@pytest.mark.parametrize("converters", ["exact", "adc"])
def test_read_noise_has_the_variance_of_its_cells(converters):
    torch.manual_seed(7)
    module, x = nn.Linear(6, 4).double(), torch.randn(1, 6).double()
    settings = CONVERTERS[converters] if converters == "exact" else Converters(None, 20, Range.PER_CALL)
    device = Memristor(g_min_s=2e-5, read_noise=0.1)
    layer = mapped(module, x, size=(4, 3), device=device, converters=settings)
    with torch.no_grad():
        drawn = torch.cat([layer(x) for _ in range(800)]).numpy()
    squares = layer.grid.join(layer.g_plus[0] ** 2 + layer.g_minus[0] ** 2).detach()
    sigma = (0.1 * layer.scale * (x.square() @ squares).sqrt()).numpy()[0]
    np.testing.assert_allclose(drawn.mean(0), module(x).detach().numpy()[0], atol=4 * sigma.max() / math.sqrt(800))
    np.testing.assert_allclose(drawn.std(0), sigma, rtol=0.1)


def test_read_noise_is_a_function_of_seed_and_call():
    x = torch.randn(2, 6)
    device = Memristor(read_noise=0.1)
    module = nn.Linear(6, 4)
    first, second, other = (mapped(module, x, device=device, seed=seed) for seed in (1, 1, 2))
    state = torch.get_rng_state()
    a, b = first(x), first(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(a, b) and torch.equal(second(x), a) and torch.equal(second(x), b)
    assert not torch.equal(other(x), a)
    copied = copy.deepcopy(first)
    assert torch.equal(copied(x), first(x))


@pytest.mark.parametrize("converters", ["exact", "adc"])
def test_every_change_of_the_conductances_is_noticed(converters):
    torch.manual_seed(8)
    x = torch.randn(3, 11)
    layer = mapped(nn.Linear(11, 7), x, size=(4, 3), converters=CONVERTERS[converters])
    other = mapped(nn.Linear(11, 7), x, size=(4, 3), converters=CONVERTERS[converters])
    with torch.no_grad():
        before = layer(x)
        layer.g_plus.zero_()
        layer.g_minus.zero_()
        torch.testing.assert_close(layer(x), layer.bias.expand(3, 7))
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(x), other(x)) and not torch.equal(layer(x), before)
        layer.g_plus.data.zero_()
        layer.g_minus.data.zero_()
        layer.forget_products()
        torch.testing.assert_close(layer(x), layer.bias.expand(3, 7))
        assert layer.double()(x.double()).dtype == torch.float64
        saved = io.BytesIO()
        torch.save(other, saved)
        saved.seek(0)
        assert torch.equal(torch.load(saved, weights_only=False)(x), other(x))


def test_gradients_are_those_of_the_float_layer():
    torch.manual_seed(9)
    module, x = nn.Conv2d(3, 4, 3).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    layer = mapped(module, x.detach(), size=(8, 3))
    mine = torch.autograd.grad(layer(x).square().sum(), (x, layer.bias, layer.g_plus, layer.g_minus))
    theirs = torch.autograd.grad(module(x).square().sum(), (x, module.bias, module.weight))
    for got, wanted in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(mine[2], -mine[3])
    joined = layer.grid.join(mine[2]).transpose(1, 2).reshape(module.weight.shape) / layer.scale
    torch.testing.assert_close(joined, theirs[2])


def test_gradients_go_straight_through_converters():
    torch.manual_seed(10)
    x = torch.randn(5, 11, requires_grad=True)
    layer = mapped(nn.Linear(11, 7), x.detach(), size=(4, 3), converters=Converters(6, 6))
    (got,) = torch.autograd.grad(layer(x).sum(), x)
    inside = x.detach().abs() < layer.input_range
    torch.testing.assert_close(got[inside], layer.weight.detach().sum(0).expand(5, 11)[inside])


def test_half_precision_keeps_its_conductances():
    x = torch.randn(4, 11)
    layer = mapped(nn.Linear(11, 7), x, size=(4, 3))
    wanted = layer(x).detach()
    torch.testing.assert_close(layer.bfloat16()(x.bfloat16()).float(), wanted, atol=0.05, rtol=0.05)


def test_wires_and_repr():
    layer = mapped(nn.Linear(11, 7), torch.randn(2, 11), size=(4, 3))
    assert wire_distances(layer.grid)[-1, 0] == 2 and layer.crossbars == 2 * 3 * 3
    assert "3 x 3 tiles of 4 x 3" in repr(layer)


@pytest.mark.parametrize("pending", [False, True])
def test_steps_of_a_fused_optimizer_are_noticed(pending):
    """They do not count as changes of a tensor; `pending` evaluates between the gradient and the step."""
    torch.manual_seed(9)
    x = torch.randn(3, 5)
    layer = mapped(nn.Linear(5, 4), x)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            layer(x)
        layer(x).square().sum().backward()
        if pending:
            with torch.no_grad():
                layer(x)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    with torch.no_grad():
        layer(x)
        assert layer._kept is not None


def test_a_call_in_inference_mode_leaves_nothing_that_gradients_refuse():
    layer = mapped(nn.Linear(5, 4), torch.randn(3, 5)).requires_grad_(False)
    layer.forget_products()
    x = torch.randn(3, 5, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    assert layer._kept is not None
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 5))
