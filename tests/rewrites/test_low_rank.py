"""Low rank against the original at full rank, against NumPy's SVD below it, then on all that follows."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spokeshave as ss
from network_zoo import ZOO, build, mixing_layers
from spokeshave.errors import InvalidArgument, NothingChanged, RewriteError
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.layer_spectrum import split_matrices
from spokeshave.structures.projected_attention import ProjectedAttention
from spokeshave.structures.separable_layer import SeparableLayer


def spread(network: nn.Module, example: Tensor) -> Tensor:
    out = network(example)
    return out[0] if isinstance(out, tuple) else out


def relative(new: nn.Module, old: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        a, b = spread(new, x), spread(old, x)
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("split", ss.Split)
@pytest.mark.parametrize("name", ZOO)
def test_at_full_rank_every_network_computes_the_same(name, split):
    network, example = build(name, 3)
    full, report = ss.low_rank(network, example, energy=1.0, only_where_it_pays=False, split=split)
    assert report.split_layers and report.max_relative_error < 1e-5
    assert relative(full.eval(), network, torch.randn(2, *example.shape[1:])) < 1e-5
    assert all(layer.error < 1e-9 for layer in report.layers)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(ZOO)), seed=st.integers(0, 99), limit=st.sampled_from([0.02, 0.1, 0.4, 1.0]))
def test_the_error_of_each_layer_is_what_its_spectrum_promises(name, seed, limit):
    network, example = build(name, seed)
    new, report = ss.low_rank(network, example, max_error=limit, only_where_it_pays=False)
    layers = mixing_layers(network)
    for row in report.split_layers:
        if row.name not in layers:  # projections of an attention
            continue
        matrices = split_matrices(row.name, layers[row.name]).double().numpy()
        energies = sum(np.linalg.svd(matrix, compute_uv=False) ** 2 for matrix in matrices)
        left_out = np.clip(1 - energies.cumsum() / energies.sum(), 0, None)
        assert row.rank == int(np.argmax(left_out <= limit + 1e-12)) + 1
        assert row.error == pytest.approx(left_out[row.rank - 1], abs=1e-6) and row.error <= limit + 1e-6
        product = new.get_submodule(row.name).product()
        old = layers[row.name].weight.detach()
        assert float((product - old).square().sum() / old.square().sum()) == pytest.approx(row.error, abs=1e-6)
    cost = ss.measure(new, example, latency=False), ss.measure(network, example, latency=False)
    assert report.flops_after * len(example) == pytest.approx(cost[0].flops * len(example), rel=0.02)
    assert (report.parameters_before, report.parameters_after) == (cost[1].parameters, cost[0].parameters)
    difference = relative(new.eval(), network, example)
    assert difference <= report.max_relative_error * (1 + 1e-4) + 1e-6


def test_energy_and_error_are_two_words_for_one_thing():
    network, example = build("lenet", 0)
    one, _ = ss.low_rank(network, example, energy=0.75, only_where_it_pays=False)
    other, _ = ss.low_rank(network, example, max_error=0.25, only_where_it_pays=False)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_a_budget_of_flops_is_met(share):
    network, example = build("convnet", 1)
    _, report = ss.low_rank(network, example, flops=share, only_where_it_pays=False)
    assert report.flops_after <= share * report.flops_before
    assert report.flops_after > 0.8 * share * report.flops_before


def test_ranks_by_pattern_split_by_pattern_and_exclude():
    network, example = build("lenet", 0)
    new, report = ss.low_rank(
        network, example, ranks={"*": 2, "conv2": 5}, split={"conv2": ss.Split.SEPARABLE}, exclude=("ip2",),
        only_where_it_pays=False, basis=ss.Basis.KMEANS,
    )  # fmt: skip
    rows = {row.name: row for row in report.layers}
    assert isinstance(new.conv1, FactorizedLayer) and isinstance(new.conv2, SeparableLayer)
    assert [rows[name].rank for name in ("conv1", "conv2", "ip1", "ip2")] == [2, 5, 2, None]
    assert rows["ip2"].why_whole == "it was excluded" and rows["conv2"].split == "separable"
    one_hot = new.conv1.combination.weight.flatten(1)
    assert one_hot.sum(1).eq(1).all() and one_hot.max(1).values.eq(1).all()
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["rank"] == 2


def test_arguments_that_make_no_sense():
    network, example = build("lenet", 0)
    for wrong, words in (
        ({}, "one of"), ({"energy": 0.9, "flops": 0.5}, "energy and flops"), ({"energy": 1.1}, "energy"),
        ({"max_error": -0.1}, "max_error"), ({"flops": 0.0}, "flops"), ({"ranks": {"nowhere": 2}}, "nowhere"),
        ({"energy": 0.9, "exclude": ("nowhere",)}, "exclude"),
        ({"energy": 0.9, "split": {"x": ss.Split.FILTERS}}, "'x'"),
        ({"energy": 0.9, "basis": ss.Basis.KMEANS}, "k-means"), ({"flops": 1e-4}, "cannot be met"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=words):
            ss.low_rank(network, example, **wrong)
    with pytest.raises(InvalidArgument, match="fails on the example"):
        ss.low_rank(network, torch.zeros(1, 3, 5, 5), energy=0.9)
    network.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InvalidArgument, match="conv2: .*finite"):
        ss.low_rank(network, example, energy=0.9)


def test_nothing_to_split_says_why_layer_by_layer():
    network, example = build("lenet", 0)
    with pytest.raises(NothingChanged, match=r"conv1: at rank \d+ its halves are predicted to take 1\.\d+x its time"):
        ss.low_rank(network, example, energy=0.9999)
    with pytest.raises(NothingChanged, match="no layer to split"):
        ss.low_rank(nn.ReLU(), torch.zeros(1), energy=0.9)


def test_only_layers_that_pay_are_split_and_rates_decide():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 1))
    with torch.no_grad():
        net[0].weight.copy_((torch.randn(64, 4) @ torch.randn(4, 576)).reshape(64, 64, 3, 3))
    x = torch.randn(1, 64, 8, 8)
    _, report = ss.low_rank(net, x, energy=0.999)
    assert [row.rank for row in report.layers] == [4, None] and report.predicted_speedup > 2
    slow_memory = ss.MachineRates(1e15, 1.0, 1.0)
    _, report = ss.low_rank(net, x, energy=0.999, rates=slow_memory)
    # Numbers moved: 2 x 4096 + 36864 whole; 8192 + 512 and 2304 + 256 in two.
    assert report.layers[0].predicted_speedup == pytest.approx((2 * 4096 + 36864) / (8192 + 512 + 2304 + 256))


def test_shared_tied_and_excluded_modules_and_the_input_stay_what_they_were():
    network, example = build("shared", 0)
    before = copy.deepcopy(network.state_dict())
    network.train()
    new, report = ss.low_rank(network, example, energy=0.8, only_where_it_pays=False)
    reasons = {row.name: row.why_whole for row in report.layers}
    assert "tied" in reasons["left"] and "tied" in reasons["right"] and reasons["twice"] == ""
    assert new.left.weight is new.right.weight and new.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not {p.data_ptr() for p in new.parameters()} & {p.data_ptr() for p in network.parameters()}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(x[:, :3], self.encoder(x)))


@pytest.mark.parametrize(
    "ranks",
    [{"*": 16}, {"*.linear?": 16}, {"*.v_proj": 16}, {"encoder.layers.1.*": 16, "decoder.multihead*": 16}],
    ids=str,
)
def test_transformers_run_split_in_eval_and_train_mode(ranks):
    torch.manual_seed(0)
    network, x = Transformer().eval(), torch.randn(2, 5, 16)
    new, report = ss.low_rank(network, x, ranks=ranks, only_where_it_pays=False)
    assert report.max_relative_error < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(new(x), network(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(new(x[:, :4]), network(x[:, :4]), rtol=1e-4, atol=1e-5)
    opened = [name for name, module in new.named_modules() if isinstance(module, ProjectedAttention)]
    assert (opened == []) == (ranks == {"*.linear?": 16})
    new.train()(x).sum().backward()
    assert all(p.grad is not None for p in new.parameters())


class ReadsItsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(x).to(self.fc.weight.dtype))


def test_code_that_reads_the_weight_of_a_layer_is_named_and_can_be_excluded():
    x = torch.randn(1, 8)
    with pytest.raises(RewriteError, match=r"AttributeError.*weight.*exclude=.*fc, out"):
        ss.low_rank(ReadsItsWeight(), x, ranks={"*": 2}, only_where_it_pays=False)
    _, report = ss.low_rank(ReadsItsWeight(), x, ranks={"*": 2}, exclude=("fc",), only_where_it_pays=False)
    assert [row.name for row in report.split_layers] == ["out"]


def test_precision_memory_order_and_frozen_weights_are_kept():
    network, example = build("resnet", 0)
    network = network.double().to(memory_format=torch.channels_last)
    network.conv1.weight.requires_grad_(False)
    new, report = ss.low_rank(network, example.double(), energy=1.0, only_where_it_pays=False)
    assert report.max_relative_error < 1e-12
    assert new.conv1.basis.weight.is_contiguous(memory_format=torch.channels_last)
    assert not new.conv1.basis.weight.requires_grad and new.conv1.basis.weight.dtype is torch.float64
    half, report = ss.low_rank(network.bfloat16(), example.bfloat16(), energy=0.9, only_where_it_pays=False)
    assert half.conv1.basis.weight.dtype is torch.bfloat16 and report.max_relative_error < 2


def test_measured_only_when_asked():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), torch.randn(8, 64)
    _, silent = ss.low_rank(net, x, ranks={"0": 4})
    _, timed = ss.low_rank(net, x, ranks={"0": 4}, measure=True)
    assert silent.measured_speedup is None and silent.layers[0].measured_speedup is None
    assert timed.measured_speedup > 0 and timed.layers[0].measured_speedup > 0 and timed.measured_spread >= 0


@pytest.mark.parametrize("split", ss.Split)
def test_split_networks_go_on_through_shrink_to_sparse_and_export(split, tmp_path):
    network, example = build("lenet", 2)
    new, _ = ss.low_rank(network, example, energy=0.7, only_where_it_pays=False, split=split)
    new.eval()
    with torch.no_grad():
        new.conv2[1].weight[:3] = 0
        new.conv2[1].bias[:3] = 0
        new.conv1[0].weight[1] = 0
    shrunk, report = ss.shrink(new, example)
    assert report.parameters_after < report.parameters_before
    x = torch.randn(2, *example.shape[1:])
    assert relative(shrunk, new, x) < 1e-5
    sparse, _ = ss.to_sparse(new, example)
    assert relative(sparse, new, x) < 1e-4
    ss.export(new, tmp_path / "net.pt2", example)
    ss.export(new, tmp_path / "net.safetensors")
    assert relative(torch.export.load(tmp_path / "net.pt2").module(), new, x) < 1e-5
    again = copy.deepcopy(new)
    ss.load_safetensors(again, tmp_path / "net.safetensors")
    assert ss.compare(network, new, example, repeats=2, threads=(1,), batch_sizes=(1,)).rows[0].ratio > 0


def test_split_attention_goes_on_through_shrink_and_export(tmp_path):
    network, example = build("vit", 0)
    new, _ = ss.low_rank(network, example, energy=0.8, only_where_it_pays=False)
    new.eval()
    assert isinstance(new.attention[1], ProjectedAttention)
    with torch.no_grad():
        new.mlps[0][0].combination.weight[:4] = 0
        new.mlps[0][0].combination.bias[:4] = 0
    shrunk, _ = ss.shrink(new, example)
    x = torch.randn(2, *example.shape[1:])
    assert relative(shrunk, new, x) < 1e-5
    ss.export(new, tmp_path / "vit.pt2", example)
    assert relative(torch.export.load(tmp_path / "vit.pt2").module(), new, x) < 1e-5


def test_split_networks_train_under_ddp():
    network, example = build("convnet", 0)
    new, _ = ss.low_rank(network, example, energy=0.9, only_where_it_pays=False)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(new.train())
        wrapped(example).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in new.parameters())
        again, _ = ss.low_rank(wrapped, example, energy=0.5, only_where_it_pays=False)
        assert not isinstance(again, nn.parallel.DistributedDataParallel)
    finally:
        torch.distributed.destroy_process_group()


def test_a_shrunk_network_can_be_split():
    network, example = build("resnet", 1)
    with torch.no_grad():
        network.layers[0].conv1.weight[:2] = 0
        network.layers[0].bn1.weight[:2] = 0
    shrunk, _ = ss.shrink(network, example)
    new, report = ss.low_rank(shrunk, example, energy=1.0, only_where_it_pays=False)
    assert report.split_layers and relative(new, network, example) < 1e-5
