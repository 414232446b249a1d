"""Networks of sparse layers: eager, compiled, exported."""

import copy
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from network_zoo import build
from sparse_cases import error, thin
from spokeshave.errors import InexactRewrite, InvalidArgument, NothingChanged
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.rewrites.sparse_layers import SparseConv2d, SparseLinear, sparse_layers
from spokeshave.rewrites.to_sparse import RunsAs
from spokeshave.targets.cpu_sparse.compiled_layer import Kernel

quiet_inductor = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def pruned(name: str = "resnet") -> tuple[nn.Module, Tensor]:
    network, example = build(name, 3)
    return thin(network, 0.3), torch.randn(19, *example.shape[1:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["lenet", "resnet", "mobilenet", "unet", "densenet", "inception", "caffenet"])
@pytest.mark.parametrize("kernel", [Kernel.GENERATED, Kernel.REFERENCE])
def test_networks_of_the_zoo_match_torch(name, kernel):
    network, x = pruned(name)
    sparse, report = sparse_layers(network, x[:1], kernel=kernel)
    with torch.no_grad():
        assert error(sparse(x), network(x)) < 1e-5
    assert all((row.runs_as is RunsAs.GENERATED) == (kernel is Kernel.GENERATED) or row.note for row in report.layers)
    assert (report.vectors != "") == (kernel is Kernel.GENERATED)


def check_compiled(backend: str) -> None:
    network = thin(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), 0.4)
    x = torch.randn(19, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    sparse, _ = sparse_layers(network, x[:1])
    torch._dynamo.reset()
    fast = torch.compile(sparse, backend=backend, fullgraph=True, dynamic=True)
    for images in (19, 4, 7):
        wanted = network(x[:images]).detach()
        assert error(fast(x[:images]).detach(), wanted) < 1e-5
        with torch.no_grad():
            assert error(fast(x[:images]), wanted) < 1e-5


@quiet_inductor
def test_torch_compile_takes_them_whole_at_any_batch():
    check_compiled("aot_eager")


@quiet_inductor
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_inductor_takes_them_too():
    check_compiled("inductor")


def test_torch_export_keeps_each_layer_as_one_operator_and_the_batch_free():
    network, x = pruned()
    sparse, report = sparse_layers(network, x[:1])
    program = torch.export.export(sparse, (x[:2],), dynamic_shapes=({0: Dim("batch")},))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    layers = [row.kind for row in report.layers if row.kind.startswith("Sparse")]
    assert calls.count("spokeshave.sparse_conv2d.default") == layers.count("SparseConv2d") > 3
    assert calls.count("spokeshave.sparse_linear.default") == layers.count("SparseLinear") == 1
    with torch.no_grad():
        for images in (1, 5, 19):
            assert error(program.module()(x[:images]), network(x[:images])) < 1e-5


def test_a_program_is_saved_and_loaded(tmp_path):
    network, x = pruned("lenet")
    sparse, _ = sparse_layers(network, x[:1])
    torch.export.save(torch.export.export(sparse, (x[:2],)), tmp_path / "sparse.pt2")
    loaded = torch.export.load(tmp_path / "sparse.pt2").module()
    with torch.no_grad():
        assert error(loaded(x[:2]), network(x[:2])) < 1e-5


def test_state_goes_through_files_and_copies(tmp_path):
    network, x = pruned("lenet")
    sparse, _ = sparse_layers(network, x[:1])
    again = copy.deepcopy(sparse)
    for buffer in again.buffers():
        buffer.zero_()
    torch.save(sparse.state_dict(), tmp_path / "state.pt")
    with torch.no_grad():
        wanted = sparse(x)
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        torch.testing.assert_close(again(x), wanted)


def test_gradients_reach_the_input_and_the_layers_that_stayed():
    network, x = pruned("lenet")
    sparse, _ = sparse_layers(network, x[:1])
    gradients = []
    for model in (sparse, network):
        images = x.clone().requires_grad_()
        model(images).square().sum().backward()
        gradients.append(images.grad)
    assert error(*gradients) < 1e-4 and gradients[0].abs().max() > 0


def test_threads_share_a_network():
    network, x = pruned()
    sparse, _ = sparse_layers(network, x[:1])
    with torch.no_grad():
        wanted = network(x)

    def call(images: int) -> float:
        with torch.no_grad():
            return error(sparse(x[:images]), wanted[:images])

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(call, [1, 19, 3, 16, 7, 19, 2, 1] * 4)) < 1e-5


def test_linear_layers_take_more_axes_and_none():
    layer = thin(nn.Linear(12, 5), 0.4)
    sparse = SparseLinear(layer)
    for shape in [(12,), (2, 12), (2, 3, 12), (0, 12)]:
        x = torch.randn(shape)
        torch.testing.assert_close(sparse(x), layer(x).detach())
    torch.testing.assert_close(sparse.weight, layer.weight.detach())


def test_a_layer_used_twice_is_one_layer():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(2, 2, 3, padding=1)
            self.same = self.one

        def forward(self, x: Tensor) -> Tensor:
            return self.same(self.one(x).relu())

    network = thin(Twice(), 0.3)
    sparse, report = sparse_layers(network, torch.randn(1, 2, 6, 6))
    assert sparse.one is sparse.same and len(report.layers) == 1 and isinstance(sparse.one, SparseConv2d)


def test_a_forward_that_cannot_be_traced_will_do():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = thin(nn.Linear(4, 4), 0.4)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) if x.sum() > 0 else self.one(-x)

    x = torch.randn(3, 4)
    network = Branches()
    sparse, _ = sparse_layers(network, x)
    torch.testing.assert_close(sparse(x), network(x).detach())


@pytest.mark.filterwarnings("ignore:Using padding")
def test_what_stays_dense_says_why():
    class Own(nn.Linear):
        pass

    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 2, padding="same"),
        nn.Conv2d(2, 2, 3),
        nn.Flatten(),
        Own(72, 4),
        nn.Linear(4, 4),
        nn.Linear(4, 4),
    )
    network[5].register_forward_hook(lambda module, inputs, output: output)
    thin(network, 0.3)
    with torch.no_grad():
        network[2].weight.fill_(0.5)
    _, report = sparse_layers(network, torch.randn(1, 1, 8, 8))
    notes = [row.note for row in report.layers]
    for note, word in zip(notes, ["circular", "same", "max_density", "Own", "hooks", ""], strict=True):
        assert word in note and bool(word) == bool(note)


def test_bad_arguments_are_refused():
    layer, x = thin(nn.Linear(4, 4), 0.4), torch.zeros(1, 4)
    with pytest.raises(InvalidArgument, match="max_density"):
        sparse_layers(layer, x, max_density=0)
    with pytest.raises(InvalidArgument, match="tolerance"):
        sparse_layers(layer, x, tolerance=0)
    with pytest.raises(InvalidArgument, match="reflect"):
        SparseConv2d(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(NothingChanged, match="max_density"):
        sparse_layers(nn.Linear(4, 4), x)


def test_a_difference_is_found(monkeypatch):
    layer = thin(nn.Linear(4, 4), 0.4)
    monkeypatch.setattr(SparseLinear, "forward", lambda self, x: nn.functional.linear(x, self.weight))
    with pytest.raises(InexactRewrite):
        sparse_layers(layer, torch.randn(1, 4))


def test_the_whole_model_may_be_one_layer():
    layer = thin(nn.Linear(4, 4), 0.4)
    sparse, report = sparse_layers(layer, torch.randn(1, 4))
    assert isinstance(sparse, SparseLinear) and report.vectors == host_cpu().widest().name  # type: ignore[union-attr]
