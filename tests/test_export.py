"""Files that other programs run: outputs after a round trip, free batch size, refusals."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spokeshave.errors import CheckpointError, InexactRewrite, InvalidArgument, MissingExtra, UnsupportedLayer
from spokeshave.export import describe_safetensors, export, load_safetensors
from spokeshave.optional import available
from spokeshave.rewrites.squeezed_convolution import SqueezedConv2d
from spokeshave.rewrites.squeezed_linear import SqueezedLinear

needs_onnx = pytest.mark.skipif(
    not (available("onnx") and available("onnxscript") and available("onnxruntime")), reason="extra onnx not installed"
)


class Gather(nn.Module):
    """A convolution that multiplies only some patch rows, with a bias map: what shrinking leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.register_buffer("rows", torch.tensor([0, 3, 4, 11, 17]))
        self.register_buffer("bias_map", torch.randn(4, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, 3).index_select(1, self.get_buffer("rows"))
        return (self.weight @ patches).view(-1, 4, 6, 6) + self.get_buffer("bias_map")


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.gather = Gather()
        self.squeeze = nn.Conv2d(width, 2, 1)
        self.fc = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gather(self.squeeze(torch.relu(self.norm(self.conv(x))))).flatten(1))


@pytest.fixture
def net() -> Net:
    net = Net()
    nn.init.normal_(net.norm.weight)
    nn.init.normal_(net.norm.get_buffer("running_mean"))
    return net.train()


def test_pt2_gives_the_outputs_at_any_batch_size(net: Net, tmp_path: Path) -> None:
    path = export(net, tmp_path / "net.pt2", torch.rand(1, 2, 8, 8))
    loaded = torch.export.load(path).module()
    assert net.training
    net.eval()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 2, 8, 8)
        torch.testing.assert_close(loaded(x), net(x), rtol=1e-5, atol=1e-6)


@needs_onnx
def test_onnx_gives_the_outputs_at_any_batch_size(net: Net, tmp_path: Path) -> None:
    import onnxruntime

    path = export(net, tmp_path / "net.onnx", torch.rand(1, 2, 8, 8))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    net.eval()
    for batch in (1, 4):
        x = torch.randn(batch, 2, 8, 8)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), net(x).detach(), rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_traced_graph_modules_are_exported(net: Net, tmp_path: Path) -> None:
    graph = torch.fx.symbolic_trace(net.eval())
    path = export(graph, tmp_path / "net.pt2", torch.rand(1, 2, 8, 8))
    x = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(torch.export.load(path).module()(x), net(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
def test_squeezed_layers_are_exported(tmp_path: Path, suffix: str) -> None:
    """`export` itself compares the file with the model; here the model is compared with the dense one."""
    dense = nn.Conv2d(2, 4, 3, padding=1, groups=2)
    rows = np.array([True, False, True, True])
    columns = [np.arange(9) % 2 == 0, np.arange(9) < 3]
    odd = np.arange(4 * 36) % 2 == 1
    squeezed = nn.Sequential(SqueezedConv2d(dense, columns, rows), nn.Flatten(), SqueezedLinear(nn.Linear(144, 3), odd))
    path = export(squeezed, tmp_path / f"net{suffix}", torch.rand(1, 2, 6, 6))
    assert path.stat().st_size > 0
    with torch.no_grad():
        mask = torch.from_numpy(np.stack(columns)).repeat_interleave(2, 0).view(4, 1, 3, 3)
        dense.weight.mul_(mask * torch.from_numpy(rows).view(4, 1, 1, 1))
    x = torch.randn(3, 2, 6, 6)
    torch.testing.assert_close(squeezed[0](x), dense(x), rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x + y, x * y

    path = export(Both(), tmp_path / "both.pt2", (torch.rand(1, 3), torch.rand(1, 3)))
    total, product = torch.export.load(path).module()(torch.full((4, 3), 2.0), torch.full((4, 3), 5.0))
    assert total.tolist() == [[7.0] * 3] * 4 and product.tolist() == [[10.0] * 3] * 4


def test_a_wrapped_forward_is_traced_by_its_arguments(tmp_path: Path) -> None:
    def noted(forward):
        @functools.wraps(forward)
        def wrapper(*arguments):
            return forward(*arguments)

        return wrapper

    class Wrapped(nn.Module):
        @noted
        def forward(self, images: Tensor) -> Tensor:
            return images.sum(1)

    path = export(Wrapped(), tmp_path / "wrapped.pt2", torch.rand(1, 3))
    assert torch.export.load(path).module()(torch.ones(5, 3)).tolist() == [3.0] * 5


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
def test_no_path_of_this_machine_is_in_the_file(net: Net, tmp_path: Path, suffix: str) -> None:
    content = export(net, tmp_path / f"net{suffix}", torch.rand(1, 2, 8, 8)).read_bytes()
    assert Path(__file__).name.encode() not in content
    assert str(tmp_path).encode() not in content


def test_safetensors_round_trip(net: Net, tmp_path: Path) -> None:
    path = export(net, tmp_path / "net.safetensors")
    other = Net()
    load_safetensors(other, path)
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    described = describe_safetensors(path)
    assert described["class"].endswith(".Net")
    assert described["layers"]["gather"] == "Gather"
    assert described["shapes"]["fc.weight"] == [3, 144]


def test_safetensors_keeps_ties(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    path = export(model, tmp_path / "tied.safetensors")
    assert describe_safetensors(path)["tied"] == {"1.weight": "0.weight"}
    load_safetensors(other, path)
    assert torch.equal(other[1].weight, model[0].weight)
    assert other[1].weight is other[0].weight


def test_load_safetensors_refuses_what_does_not_fit_and_changes_nothing(net: Net, tmp_path: Path) -> None:
    path = export(net, tmp_path / "net.safetensors")
    wider = Net(width=5)
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"conv\.weight: expected \(5, 2, 3, 3\).*got \(4, 2, 3, 3\)"):
        load_safetensors(wider, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())
    with pytest.raises(CheckpointError, match=r"file lacks \['bias', 'weight'\]"):
        load_safetensors(nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match=r"float64"):
        load_safetensors(Net().double(), path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_load_safetensors_refuses_truncated_files(net: Net, tmp_path: Path, keep: int) -> None:
    path = export(net, tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="whole"):
        load_safetensors(net, path)
    with pytest.raises(CheckpointError, match=r"absent\.safetensors"):
        load_safetensors(net, tmp_path / "absent.safetensors")


def test_refusals_name_what_to_do(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match=r"ending in \.onnx, \.pt2 or \.safetensors"):
        export(net, tmp_path / "net.pth", torch.rand(1, 2, 8, 8))
    with pytest.raises(InvalidArgument, match="needs an example"):
        export(net, tmp_path / "net.pt2")
    with pytest.raises(InvalidArgument, match="Net fails on inputs"):
        export(net, tmp_path / "net.pt2", torch.rand(1, 7, 8, 8))

    def absent(module: str, purpose: str) -> None:
        raise MissingExtra(f"{purpose} needs {module}")

    monkeypatch.setattr(sys.modules[export.__module__], "require", absent)
    with pytest.raises(MissingExtra, match="exporting to ONNX needs onnx"):
        export(net, tmp_path / "net.onnx", torch.rand(1, 2, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_traced(tmp_path: Path) -> None:
    class DependsOnValues(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UnsupportedLayer, match="DependsOnValues cannot be traced"):
        export(DependsOnValues(), tmp_path / "net.pt2", torch.rand(1, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_gives_other_outputs_is_not_written(tmp_path: Path) -> None:
    calls: list[int] = []

    class Drifts(nn.Module):
        """Each call gives another multiple of its input; a trace holds one of them."""

        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return x * len(calls)

    earlier = tmp_path / "net.pt2"
    earlier.write_text("an earlier file")
    with pytest.raises(InexactRewrite, match=r"net\.pt2: output 0 differs"):
        export(Drifts(), earlier, torch.rand(1, 2))
    assert earlier.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [earlier]


def test_a_network_in_channels_last_order_is_written_whole(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 9, 9)
    export(net, tmp_path / "net.pt2", image)  # torch's warning of an incomplete tensor would fail this test
    assert torch.allclose(torch.export.load(tmp_path / "net.pt2").module()(image), net(image), atol=1e-6)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
