"""Whole networks: native parts, torch where the engine ends."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from network_zoo import build
from sparse_cases import SETS, error, thin
from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.to_sparse import to_sparse
from spokeshave.structures.graph_tracing import trace
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork, cut
from spokeshave.timing import using_threads


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.third, self.last = nn.Conv2d(8, 4, 1), nn.Linear(12 * 64, 10)
        self.scale = nn.Parameter(torch.ones(8, 1, 1) / 3)

    def forward(self, x: Tensor) -> dict[str, object]:
        between = self.second(torch.sigmoid(self.first(x)))
        third = self.third(between)
        joined = torch.cat([torch.tanh(between * self.scale), third], 1)
        return {"scores": self.last(joined.view(joined.size(0), -1)), "parts": (third, 3)}


def compiled(network: nn.Module, x: Tensor, vectors=SETS[0]) -> SparseNetwork:
    return SparseNetwork.of(trace(network, x[:1]), vectors)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("threads", [1, 2])
def test_torch_takes_over_where_the_engine_ends(vectors, threads):
    torch.manual_seed(0)
    network, x = thin(Mixed(), 0.3), torch.randn(19, 3, 16, 16)
    fast = compiled(network, x, vectors)
    with using_threads(threads), torch.no_grad():
        got, wanted = fast(x), network(x)
    assert error(got["scores"], wanted["scores"]) < 1e-5 and error(got["parts"][0], wanted["parts"][0]) < 1e-5
    assert got["parts"][1] == 3 and len(fast.fallbacks) >= 3 and len(cut(fast.network)) > len(fast.fallbacks)


@pytest.mark.parametrize("name", ["lenet", "resnet", "mobilenet", "unet", "densenet", "inception"])
def test_networks_of_the_zoo_match_torch(name):
    network, example = build(name, 3)
    thin(network, 0.4)
    x = torch.randn(18, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert error(compiled(network, x)(x), network(x)) < 1e-5


def test_the_plain_definition_can_be_forced():
    network, example = build("resnet", 3)
    fast = compiled(network, example)
    fast.plain = True
    assert error(fast(example), network(example).detach()) < 1e-5


def test_inputs_need_not_be_contiguous():
    network, example = build("resnet", 3)
    x = torch.randn(5, *example.shape[2:], example.shape[1]).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert error(compiled(network, example)(x), network(x)) < 1e-5


def test_nan_in_one_image_stays_there():
    network, example = build("lenet", 3)
    x = torch.randn(20, *example.shape[1:])
    x[4] = torch.nan
    got = compiled(network, example)(x)
    assert got[4].isnan().all() and not torch.cat([got[:4], got[5:]]).isnan().any()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 1, 27, 28), "shape"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.float64), "float32"),
        (torch.zeros(28), "shape"),
    ],
)
def test_wrong_inputs_are_refused(x, message):
    network, example = build("lenet", 3)
    with pytest.raises(InvalidArgument, match=message):
        compiled(network, example)(x)


def test_train_changes_the_flag_only():
    network, example = build("resnet", 3)
    fast = compiled(network, example)
    before = fast(example)
    assert fast.train().training and torch.equal(fast(example), before)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.layer(x) + y


def test_missing_inputs_and_what_is_no_tensor_are_refused():
    x = torch.randn(2, 3, 6, 6)
    fast = SparseNetwork.of(trace(Sum(), (x, x)), SETS[0])
    with pytest.raises(InvalidArgument, match="y missing"):
        fast(x)
    with pytest.raises(InvalidArgument, match="ndarray"):
        fast(x, x.numpy())
    with pytest.raises(InvalidArgument, match="uint8"):
        fast(x, x.to(torch.uint8))


def test_a_view_of_negated_numbers_is_negated():
    network, x = thin(nn.Sequential(nn.Conv2d(3, 4, 3)), 0.5), torch.randn(2, 3, 6, 6)
    fast, negated = compiled(network, x), torch.complex(x, x).conj().imag.contiguous()
    with torch.no_grad():
        for view in (torch._neg_view(x), negated):
            assert error(fast(view), network(-x)) < 1e-5


def test_copies_and_pickles_compile_for_themselves():
    network, x = thin(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 0.5), torch.randn(2, 3, 6, 6)
    fast = compiled(network, x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert error(other(x), fast(x)) < 1e-5 and other.segments[0] is not fast.segments[0]


def test_hooks_are_called():
    network = thin(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 0.5)
    x = torch.randn(1, 3, 8, 8)
    fast, _ = to_sparse(network, x)
    wanted, seen = fast(x), []
    with fast.register_forward_hook(lambda module, given, result: seen.append((module, given, result))):
        assert torch.equal(fast(x), wanted) and seen[0][0] is fast and torch.equal(seen[0][2], wanted)
    with nn.modules.module.register_module_forward_pre_hook(lambda module, given: (2 * given[0],)):
        assert torch.equal(fast(x), fast.forward(2 * x))
    with fast.register_forward_pre_hook(lambda module, given: (2 * given[0],)):
        assert torch.equal(fast(x), fast.forward(2 * x))
    with pytest.raises(TypeError):
        fast(x=x)


def test_a_sparse_network_inside_of_another_is_kept_whole():
    network = thin(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 0.5)
    x = torch.randn(1, 3, 8, 8)
    fast, _ = to_sparse(network, x)
    traced = trace(nn.Sequential(fast, nn.ReLU()), x)
    assert "0" in [node.target for node in traced.graph.graph.nodes] and torch.equal(traced.graph(x), fast(x).relu())


def test_the_result_is_float32_whatever_torch_makes_by_default():
    network = thin(nn.Sequential(nn.Conv2d(3, 4, 3)), 0.5)
    x = torch.randn(1, 3, 8, 8)
    fast, _ = to_sparse(network, x)
    wanted = fast(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(fast(x), wanted)
    finally:
        torch.set_default_dtype(torch.float32)
