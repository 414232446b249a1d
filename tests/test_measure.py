"""Costs against closed forms, and the state that timing must leave behind."""

import inspect
import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.measure import Comparison, Measurement, compare, measure
from spokeshave.rewrites.squeezed_convolution import SqueezedConv2d
from spokeshave.rewrites.squeezed_linear import SqueezedLinear

ODD = np.arange(144) % 2 == 1


class SmallNet(nn.Module):
    """Two convolutions, a functional matrix product in a block, a linear layer tied to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, groups=2, bias=False)
        self.block = Product(8)
        self.fc = nn.Linear(8 * 6 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(torch.relu(self.norm(self.conv1(x))))
        return self.fc(self.block(x).flatten(1))


class Product(nn.Module):
    """Gathers patch rows and multiplies them by a matrix, as a squeezed convolution does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 3))
        self.register_buffer("rows", torch.tensor([0, 2, 5]))

    def forward(self, x: Tensor) -> Tensor:
        patches = x.flatten(2).index_select(1, self.get_buffer("rows"))
        return (self.weight @ patches).view(x.shape)


@pytest.fixture
def net() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


def test_counts_equal_closed_forms(net: SmallNet) -> None:
    cost = measure(net, torch.zeros(2, 1, 8, 8), latency=False)
    by_name = {layer.name: layer for layer in cost.layers}
    flops = {
        "conv1": 2 * (8 * 8) * 4 * (1 * 9),
        "conv2": 2 * (6 * 6) * 8 * (2 * 9),
        "block": 2 * (6 * 6) * 8 * 3,
        "fc": 2 * 288 * 10,
    }
    parameters = {"conv1": 4 * 9 + 4, "norm": 8, "conv2": 8 * 2 * 9, "block": 24, "fc": 2880 + 10}
    assert {name: by_name[name].flops for name in flops} == flops
    assert {name: by_name[name].parameters for name in parameters} == parameters
    assert cost.flops == sum(flops.values()) == sum(layer.flops for layer in cost.layers)
    assert cost.parameters == sum(parameters.values())
    norm_buffers = (4 + 4) * 4 + 8
    assert cost.bytes == 4 * cost.parameters + norm_buffers + 3 * 8
    assert cost.latencies == ()


def test_flops_are_per_image_whatever_the_example_holds(net: SmallNet) -> None:
    one = measure(net, torch.zeros(1, 1, 8, 8), latency=False)
    many = measure(net, torch.zeros(7, 1, 8, 8), latency=False)
    assert one.flops == many.flops > 0


def test_tied_parameters_count_once() -> None:
    net = nn.Sequential(nn.Linear(5, 5, bias=False), nn.ReLU(), nn.Linear(5, 5, bias=False))
    net[2].weight = net[0].weight
    cost = measure(net, torch.zeros(1, 5), latency=False)
    assert (cost.parameters, cost.bytes, cost.flops) == (25, 100, 2 * 2 * 25)
    assert [layer.parameters for layer in cost.layers] == [25, 0]


def test_layer_called_twice_is_charged_twice() -> None:
    shared = nn.Linear(3, 3)
    cost = measure(nn.Sequential(shared, shared), torch.zeros(1, 3), latency=False)
    assert [(layer.name, layer.flops) for layer in cost.layers] == [("0", 2 * 2 * 9)]


def test_operations_outside_layers_go_to_the_module_around_them() -> None:
    class Outside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(-1, -2)

    cost = measure(nn.Sequential(Outside()), torch.zeros(1, 4, 6), latency=False)
    assert [(layer.name, layer.flops) for layer in cost.layers] == [("0", 2 * 4 * 4 * 6)]
    assert [layer.name for layer in measure(Outside(), torch.zeros(1, 4, 6), latency=False).layers] == ["(model)"]


def test_squeezed_convolution_is_charged_for_its_kept_columns_under_its_own_name() -> None:
    dense = nn.Conv2d(3, 4, 3, padding=1)
    kept = np.arange(27) % 5 == 0
    net = nn.Sequential(nn.ReLU(), SqueezedConv2d(dense, [kept]), nn.Flatten(), SqueezedLinear(nn.Linear(144, 2), ODD))
    cost = measure(net, torch.rand(1, 3, 6, 6), threads=(1,), batch_sizes=(1,), repeats=1)
    rows = {layer.name: (layer.kind, layer.parameters, layer.flops) for layer in cost.layers if layer.flops}
    assert rows == {
        "1": ("SqueezedConv2d", 4 * 6 + 4, 2 * 36 * 4 * 6),
        "3": ("SqueezedLinear", 2 * 72 + 2, 2 * 72 * 2),
    }
    assert {layer.name for layer in cost.layers} == {"(model)", "0", "1", "2", "3"}
    assert cost.parameters == sum(layer.parameters for layer in cost.layers) == 174
    layers = compare(net, net, torch.rand(1, 3, 6, 6), threads=(1,), batch_sizes=(1,), repeats=1).layers
    assert [layer.name for layer in layers] == ["0", "1", "2", "3", "(model)"]


def test_attention_is_counted_though_torch_fuses_it() -> None:
    width, tokens = 8, 5
    net = nn.TransformerEncoderLayer(width, 2, dim_feedforward=16, batch_first=True)
    cost = measure(net, torch.zeros(1, tokens, width), latency=False)
    projections = 2 * tokens * width * (4 * width)
    attention = 2 * (2 * tokens * tokens * width)
    feed_forward = 2 * (2 * tokens * width * 16)
    assert cost.flops == projections + attention + feed_forward


def test_nonzero_parameters(net: SmallNet) -> None:
    with torch.no_grad():
        net.fc.weight[:3] = 0
    cost = measure(net, torch.zeros(1, 1, 8, 8), latency=False)
    zero_by_design = 4  # the shift of the normalization starts at 0
    assert cost.nonzero_parameters == cost.parameters - 3 * 288 - zero_by_design


def test_latency_leaves_modes_hooks_threads_and_gradients_alone(net: SmallNet) -> None:
    net.train()
    net.norm.eval()
    modes = [module.training for module in net.modules()]
    statistics = net.norm.running_mean.clone() if net.norm.running_mean is not None else None
    threads = torch.get_num_threads()
    cost = measure(net, torch.rand(1, 1, 8, 8), threads=(1, 2), batch_sizes=(1, 3), repeats=6)
    assert [(row.batch_size, row.threads) for row in cost.latencies] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert all(row.median_s > 0 and row.spread_s >= 0 and row.repeats == 6 for row in cost.latencies)
    timed = {layer.name for layer in cost.layers if layer.latency_s is not None and layer.latency_s > 0}
    assert timed >= {"conv1", "conv2", "norm", "block", "fc"}
    assert [module.training for module in net.modules()] == modes
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in net.parameters())
    assert statistics is not None and torch.equal(statistics, net.norm.get_buffer("running_mean"))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_threads_are_restored_when_the_model_fails_midway() -> None:
    class FailsOnBatches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1:
                raise RuntimeError("one image only")
            return x

    threads = torch.get_num_threads()
    net = FailsOnBatches().train()
    with pytest.raises(RuntimeError, match="one image only"):
        measure(net, torch.zeros(1, 3), threads=(threads + 1,), batch_sizes=(2,))
    assert torch.get_num_threads() == threads
    assert net.training


def test_none_threads_is_what_torch_uses_and_is_not_timed_twice() -> None:
    cost = measure(nn.Linear(2, 2), torch.zeros(1, 2), threads=(torch.get_num_threads(), None), batch_sizes=(1,))
    assert [row.threads for row in cost.latencies] == [torch.get_num_threads()]


def test_compare_with_itself_gives_every_row_and_layer(net: SmallNet) -> None:
    result = compare(net, net, torch.rand(1, 1, 8, 8), threads=(1,), batch_sizes=(1, 4), repeats=10)
    assert [row.batch_size for row in result.rows] == [1, 4]
    for row in result.rows:
        assert row.ratio > 0
        assert row.repeats == 10
        assert min(row.before_s, row.after_s) > 0 and math.isfinite(row.ratio_spread)
    assert {layer.name for layer in result.layers} == {"(model)", "conv1", "norm", "conv2", "block", "fc"}
    assert all(layer.before_s and layer.after_s for layer in result.layers)


def test_ratios_are_before_over_after_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [[4.0, 4.0, 4.0], [2.0, 1.0, 4.0]]
    monkeypatch.setattr(sys.modules[compare.__module__], "time_in_turns", lambda *_: pairs)
    (row,) = compare(nn.Identity(), nn.Identity(), torch.zeros(1), threads=(1,), batch_sizes=(1,), repeats=1).rows
    assert (row.ratio, row.ratio_spread) == (2.0, 1.5), "median and quartiles of 2, 4, 1"
    assert (row.before_s, row.after_s, row.after_spread_s, row.repeats) == (4.0, 2.0, 1.5, 3)


def test_compare_names_layers_that_one_model_lacks() -> None:
    before = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    after = nn.Sequential(nn.Linear(4, 4))
    layers = {layer.name: layer for layer in compare(before, after, torch.zeros(1, 4), repeats=2).layers}
    assert layers["2"].after_s is None
    assert layers["2"].before_s is not None and layers["2"].before_s > 0


def test_dicts_survive_json_and_rebuild(net: SmallNet) -> None:
    example = torch.rand(1, 1, 8, 8)
    cost = measure(net, example, repeats=2, batch_sizes=(1,), threads=(1,))
    assert Measurement.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
    result = compare(net, net, example, repeats=2, batch_sizes=(1,), threads=(1,))
    assert Comparison.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert cost.table().row_count == len(cost.layers) + 1
    assert result.table().row_count == 1


def test_from_dict_says_what_does_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"Measurement.*latencies"):
        Measurement.from_dict({"parameters": 3, "layers": []})
    with pytest.raises(InvalidArgument, match="Comparison"):
        Comparison.from_dict({"rows": [], "layers": [], "layer_batch_size": 1, "unknown": 2})


def test_tuple_of_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
            return scale * torch.bmm(x, y)

    cost = measure(Sum(), (torch.rand(2, 3, 4), torch.rand(2, 4, 5), torch.tensor(2.0)), repeats=1, threads=(1,))
    assert cost.flops == 2 * 3 * 4 * 5
    assert all(row.median_s > 0 and row.spread_s == 0 for row in cost.latencies)


@pytest.mark.parametrize("example", [None, [1, 2], (), (torch.zeros(1), 3)])
def test_example_that_is_no_tensor(example: object) -> None:
    """Unwrapped: the type checker of the tests must not answer in the place of the function."""
    with pytest.raises(InvalidArgument, match="expected a tensor or a tuple of tensors"):
        inspect.unwrap(measure)(nn.Identity(), example)  # pyright: ignore[reportArgumentType]


def test_example_that_the_model_refuses(net: SmallNet) -> None:
    with pytest.raises(InvalidArgument, match=r"SmallNet fails on an example of shape \(1, 3, 8, 8\)"):
        measure(net, torch.zeros(1, 3, 8, 8))
    with pytest.raises(InvalidArgument, match="empty batch"):
        measure(net, torch.zeros(0, 1, 8, 8))


@pytest.mark.parametrize("setting", [{"threads": (0,)}, {"batch_sizes": (0,)}, {"repeats": 0}, {"batch_sizes": ()}])
def test_settings_below_one(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="expected"):
        measure(nn.Identity(), torch.zeros(1, 1), **setting)  # pyright: ignore[reportArgumentType]
