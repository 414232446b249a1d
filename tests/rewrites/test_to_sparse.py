"""The public verb: exactness, report, refusals."""

import copy
import json
import threading

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from network_zoo import build
from onnx_cases import by_onnxruntime, graph
from sparse_cases import SETS, error, in_double, thin
from spokeshave.errors import InexactRewrite, InvalidArgument, JitRefused, NothingChanged
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.rewrites.shrink import shrink
from spokeshave.rewrites.to_sparse import LinearValues, RunsAs, to_sparse
from spokeshave.targets.cpu_sparse import segment, sparse_network
from spokeshave.targets.cpu_sparse.network_steps import Multiply
from spokeshave.targets.cpu_sparse.roofline import Level, Roofline
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork
from spokeshave.targets.cpu_sparse.sparse_network_file import load_sparse, save_sparse


@pytest.mark.parametrize("vectors", SETS)
def test_the_report_counts_nonzeros_and_names_what_torch_runs(vectors):
    network = thin(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Softplus()), 0.25)
    fast, report = to_sparse(network, torch.randn(1, 3, 8, 8), vectors=vectors)
    convolution, rest = report.layers
    assert convolution.runs_as is RunsAs.GENERATED and convolution.nonzeros == int((network[0].weight != 0).sum())  # type: ignore[union-attr]
    assert convolution.density == pytest.approx(convolution.nonzeros / 216) and report.vectors == vectors.name
    assert rest.runs_as is RunsAs.TORCH and "Softplus" in rest.note and report.max_relative_error <= 1e-5
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["kind"] == "Convolve"
    assert report.table().row_count == 2 and not fast.plain


def test_a_shrunk_network_can_be_compiled():
    network, example = build("resnet", 4)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[::4] = 0
    small, _ = shrink(network, example, squeeze=False)
    fast, _ = to_sparse(small, example)
    assert error(fast(example), network(example).detach()) < 1e-5


@pytest.mark.parametrize("vectors", SETS)
def test_linear_weights_can_be_rounded(vectors, tmp_path):
    network = thin(nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 9)), 0.3)
    x = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, _ = to_sparse(network, x[:1], vectors=vectors)
    fast, report = to_sparse(network, x[:1], vectors=vectors, linear_values=LinearValues.BFLOAT16)
    assert report.max_relative_error <= 1e-5 and "bfloat16" in report.notes[0]
    values = [torch.from_numpy(step.weight.values) for step in fast.network.steps if isinstance(step, Multiply)]
    assert len(values) == 2 and all(one.bfloat16().float().equal(one) for one in values)
    for count in (1, 20):
        assert error(fast(x[:count]), fast.definition()(x[:count])) < 1e-5
        assert 1e-6 < error(fast(x[:count]), whole(x[:count])) < 2e-2
    save_sparse(fast, tmp_path / "half.safetensors")
    assert torch.equal(load_sparse(tmp_path / "half.safetensors", vectors=vectors)(x[:1]), fast(x[:1]))


def test_weights_that_rounding_ruins_are_refused():
    network = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.001, -1.0]]))
        network[0].bias.zero_()
    with pytest.raises(InexactRewrite, match="keep them in float32"):
        to_sparse(network, torch.ones(1, 2), linear_values=LinearValues.BFLOAT16)
    to_sparse(network, torch.ones(1, 2))


def test_the_definition_of_rounded_weights_runs_in_double():
    """So that a sum that cancels can be told from a defect, as with the original's own weights."""
    network = thin(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(144, 30), nn.Softplus()), 0.5)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    fast, _ = to_sparse(network, x, linear_values=LinearValues.BFLOAT16)
    exact = copy.deepcopy(fast.definition()).double()(x.double())
    assert exact.dtype == torch.float64 and 0 < error(fast.definition()(x).double(), exact) < 1e-6


def test_the_model_runs_in_the_caller_s_thread():
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.threads = nn.Linear(4, 3), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.threads.append((threading.current_thread(), torch.is_inference_mode_enabled()))
            return self.layer(x)

    threads = Remembering.threads = []
    network = Remembering().eval()
    network.__dict__["threads"] = threads
    network.__deepcopy__ = lambda memo: network  # type: ignore[method-assign] # the same list in every copy
    with torch.inference_mode():
        to_sparse(network, torch.ones(1, 4))
    assert threads and set(threads) == {(threading.current_thread(), True)}


def test_bad_arguments_are_refused():
    x = torch.zeros(1, 2)
    with pytest.raises(InvalidArgument, match="tolerance"):
        to_sparse(nn.Linear(2, 2), x, tolerance=0)
    missing = next(v for v in VectorSet if not host_cpu().supports(v))
    with pytest.raises(InvalidArgument, match="lacks"):
        to_sparse(nn.Linear(2, 2), x, vectors=missing)


def test_a_network_without_known_layers_is_refused():
    with pytest.raises(NothingChanged, match="softplus"):
        to_sparse(nn.Softplus(), torch.zeros(1, 2))


def test_a_random_model_is_not_called_exact():
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.one(x), 0.5, training=True)

    with pytest.raises(InexactRewrite):
        to_sparse(Noise(), torch.ones(1, 2))


def test_where_code_is_forbidden_torch_runs_with_a_warning(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise JitRefused("the system refuses generated code")

    monkeypatch.setattr(segment.PixelLanesEngine, "__init__", refuse)
    network = thin(nn.Sequential(nn.Linear(4, 3)), 0.5)
    with pytest.warns(RuntimeWarning, match="refuses"):
        fast, report = to_sparse(network, torch.ones(1, 4))
    assert fast.plain and report.vectors == "" and report.layers[0].runs_as is RunsAs.TORCH
    assert torch.allclose(fast(torch.ones(5, 4)), network(torch.ones(5, 4)))


def test_a_model_that_is_checked_a_second_time_is_still_compared_with_its_example(monkeypatch):
    torch.manual_seed(0)
    network = thin(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), 0.25)
    x = torch.randn(1, 3, 8, 8)
    first = to_sparse(network, x)[1].max_relative_error
    runs: list[object] = []
    real = SparseNetwork.run
    monkeypatch.setattr(SparseNetwork, "run", lambda *arguments: runs.append(arguments) or real(*arguments))
    assert to_sparse(network, x)[1].max_relative_error == first and len(runs) == 1
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1
    to_sparse(network, x)
    assert len(runs) == 1 + 4  # other weights: every probe
    monkeypatch.setattr(SparseNetwork, "run", lambda *arguments: 2 * real(*arguments))
    with pytest.raises(InexactRewrite):
        to_sparse(network, x)


def test_a_layer_that_dense_code_runs_faster_is_left_to_torch(monkeypatch):
    # A machine that computes dense layers ten times as fast as generated code: what a real one does is measured.
    rates = {0.05: 5e10, 0.2: 5e10, 1.0: 1e10}
    machine = Roofline(1, 1, 2e11, 1e11, rates, dict.fromkeys(Level, 1e12))
    monkeypatch.setattr(sparse_network, "measure_roofline", lambda images: machine)
    monkeypatch.setattr(sparse_network, "with_thin_layers", lambda roofline: roofline)
    monkeypatch.setattr(sparse_network, "dense_seconds", lambda *_, **__: 1e-3)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), thin(nn.Conv2d(64, 64, 3, padding=1), 0.1)
    ).eval()
    x = torch.randn(1, 64, 56, 56)
    fast, report = to_sparse(network, x)
    assert [layer.runs_as for layer in report.layers] == [RunsAs.DENSE, RunsAs.GENERATED]
    assert report.layers[1].speedup > 1 > report.layers[0].speedup and "faster" in report.layers[0].note
    assert error(fast(x), in_double(network, x)) < 1e-5
    with pytest.raises(NothingChanged, match="Prune it first"):
        to_sparse(network[:2], x)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"tune_s": -1.0}, {"tolerance": 0.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidArgument):
        to_sparse(nn.Linear(2, 2), torch.zeros(1, 2), **wrong)


@pytest.mark.parametrize("as_file", [True, False])
def test_an_onnx_network_can_be_compiled(tmp_path, as_file):
    weight = np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
    weight[np.abs(weight) < 0.8] = 0
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["m", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    constants = {"w": weight, "v": np.eye(5, 54, dtype=np.float32), "flat": np.array([1, 54])}
    model = graph(nodes, (1, 3, 6, 6), constants)
    onnx.save(model, tmp_path / "net.onnx")
    fast, report = to_sparse(tmp_path / "net.onnx" if as_file else model, torch.randn(1, 3, 6, 6))
    assert all(layer.runs_as is RunsAs.GENERATED for layer in report.layers) and report.layers[
        0
    ].nonzeros == np.count_nonzero(weight)
    x = torch.randn(19, 3, 6, 6)
    wanted = torch.cat([by_onnxruntime(model, image[None])[0] for image in x])
    assert error(fast(x), wanted) < 1e-5


def test_what_is_no_network_is_refused():
    with pytest.raises(InvalidArgument, match="ONNX"):
        to_sparse(3, torch.zeros(1, 2))
