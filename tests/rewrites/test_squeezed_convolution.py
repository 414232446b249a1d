import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spokeshave.rewrites import CroppedConv2d, SqueezedConv2d, squeezed_convolution
from spokeshave.rewrites.squeezed_convolution import padding_of, scatter_rows

GEOMETRIES = st.fixed_dictionaries(
    {
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 2)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "kernel_size": st.tuples(st.integers(1, 4), st.integers(1, 3)),
        "groups": st.sampled_from([1, 2, 3]),
        "bias": st.booleans(),
    }
)


def sparse_convolution(geometry: dict, seed: int) -> nn.Conv2d:
    torch.manual_seed(seed)
    layer = nn.Conv2d(6, 12, **geometry).double()
    with torch.no_grad():
        weight = layer.weight.view(geometry["groups"], 12 // geometry["groups"], -1)
        weight *= (torch.rand(weight.shape[0], 1, weight.shape[2]) < 0.3).double()
        layer.weight[torch.rand(12) < 0.3] = 0
    return layer


def masks(layer: nn.Conv2d) -> tuple[list[np.ndarray], np.ndarray]:
    table = layer.weight.detach().reshape(layer.groups, layer.out_channels // layer.groups, -1).ne(0)
    columns = table.any(1)
    columns[:, 0] = True
    return [mask.numpy() for mask in columns], table.any(2).reshape(-1).numpy()


@given(geometry=GEOMETRIES, seed=st.integers(0, 999), drop_rows=st.booleans(), batch=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_squeezed_equals_dense_for_any_geometry(geometry, seed, drop_rows, batch):
    layer = sparse_convolution(geometry, seed)
    columns, rows = masks(layer)
    rows[0] = True
    squeezed = SqueezedConv2d(layer, columns, rows if drop_rows else None)
    for size in ((9, 8), (13, 7)):
        x = torch.randn(batch, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(squeezed(x), layer(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(squeezed.dense_weight(), layer.weight.detach())


@given(geometry=GEOMETRIES, seed=st.integers(0, 999), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_cropped_equals_dense_for_any_geometry(geometry, seed, data):
    torch.manual_seed(seed)
    layer = nn.Conv2d(6, 12, **geometry).double()
    height, width = geometry["kernel_size"]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    channels = np.tile(np.arange(6 // geometry["groups"]) > 0, geometry["groups"])
    rows = np.arange(12) % 3 != 1 if geometry["groups"] == 1 and data.draw(st.booleans()) else None
    with torch.no_grad():
        keep = torch.zeros_like(layer.weight)
        keep[:, 1:, top:bottom, left:right] = 1
        layer.weight *= keep
        if rows is not None:
            layer.weight[torch.from_numpy(~rows)] = 0
    cropped = CroppedConv2d(layer, channels, (top, bottom, left, right), rows)
    for size in ((9, 8), (13, 7)):
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        torch.testing.assert_close(cropped(x), layer(x), rtol=1e-10, atol=1e-12)


def test_large_matrices_take_the_convolution_path():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 80, 3, padding=1).double()
    columns = np.arange(576) % 2 == 0
    with torch.no_grad():
        layer.weight.view(80, -1)[:, torch.from_numpy(~columns)] = 0
    x = torch.randn(2, 64, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(SqueezedConv2d(layer, [columns])(x), layer(x))


def test_large_batches_are_cut_into_parts_that_fit_the_cache(monkeypatch):
    layer = sparse_convolution({"kernel_size": 3, "padding": 1, "groups": 2}, 3)
    squeezed = SqueezedConv2d(layer, masks(layer)[0])
    monkeypatch.setattr(squeezed_convolution, "CHUNK_ELEMENTS", 2 * len(squeezed.planes) * 30)
    calls = []
    plain = squeezed._convolve
    monkeypatch.setattr(squeezed, "_convolve", lambda part: calls.append(len(part)) or plain(part))
    x = torch.randn(5, 6, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(squeezed(x), layer(x))
    assert calls == [2, 2, 1]


def test_gradients_equal_those_of_the_dense_layer():
    layer = sparse_convolution({"kernel_size": 3, "padding": 1, "groups": 2}, 5)
    columns, _ = masks(layer)
    squeezed = SqueezedConv2d(layer, columns)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    layer(x).square().sum().backward()
    squeezed(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert layer.weight.grad is not None and layer.bias is not None and squeezed.bias is not None
    for group, weight in enumerate(squeezed.weights):
        dense = layer.weight.grad.reshape(2, 6, -1)[group]
        places = squeezed.places[sum(squeezed.columns_of_group[:group]) :][: weight.shape[1]]
        torch.testing.assert_close(weight.grad, dense[:, places])
    torch.testing.assert_close(squeezed.bias.grad, layer.bias.grad)


@pytest.mark.parametrize("kind", ["squeezed", "cropped"])
def test_state_survives_saving_and_export(kind):
    layer = sparse_convolution({"kernel_size": 3, "padding": 1, "groups": 1}, 1).float()
    columns, rows = masks(layer)

    def make(source: nn.Conv2d) -> nn.Module:
        if kind == "squeezed":
            return SqueezedConv2d(source, columns, rows)
        return CroppedConv2d(source, np.arange(6) > 1, (0, 3, 1, 3), np.arange(12) > 2)

    module = make(layer)
    again = make(nn.Conv2d(6, 12, 3, padding=1))
    again.load_state_dict(module.state_dict())
    x = torch.randn(2, 6, 7, 5)
    assert torch.equal(again(x), module(x))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(module.eval(), (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(torch.cat([x, x, x])), module(torch.cat([x, x, x])))


def test_rows_are_scattered_over_their_bias():
    values = torch.arange(4.0).reshape(1, 2, 1, 2)
    out = scatter_rows(torch.tensor([2, 0]), values, torch.tensor([10.0, 20.0, 30.0]), 3)
    assert out[0, :, 0].tolist() == [[12.0, 13.0], [20.0, 20.0], [30.0, 31.0]]
    assert F.relu(scatter_rows(torch.tensor([1]), values[:, :1], None, 2))[0, 0].sum() == 0


def test_padding_in_pixels():
    assert padding_of(nn.Conv2d(1, 1, (3, 5), padding="same", dilation=(2, 1))) == (2, 2)
    assert padding_of(nn.Conv2d(1, 1, 3, padding="valid")) == (0, 0)
    assert padding_of(nn.Conv2d(1, 1, 3, padding=(1, 2))) == (1, 2)
