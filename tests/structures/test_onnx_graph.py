"""Exported networks against onnxruntime; files that are not what they should be."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from network_zoo import build
from onnx_cases import by_onnxruntime, exported, graph
from sparse_cases import error
from spokeshave.errors import CheckpointError, FileError, MissingExtra, UnsupportedLayer
from spokeshave.structures import onnx_graph
from spokeshave.structures.onnx_graph import load_onnx

exports = pytest.mark.filterwarnings("ignore")  # torch's exporter calls what torch itself has deprecated


def alexnet() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(12 * 9, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10)),
        nn.Softmax(dim=1),
    )
    return network, torch.randn(1, 3, 35, 35)


@exports
@pytest.mark.parametrize("name", ["lenet", "convnet", "alexnet", "resnet", "inception", "densenet", "mobilenet"])
@pytest.mark.parametrize("free_batch", [False, True])
def test_networks_exported_by_scripting_match_onnxruntime(name, free_batch, tmp_path):
    network, example = alexnet() if name == "alexnet" else build(name, 3)
    model = exported(network, example[:1], tmp_path / "net.onnx", False, free_batch)
    read, x = load_onnx(tmp_path / "net.onnx"), torch.randn(5, *example.shape[1:])
    with torch.no_grad():
        (wanted,) = by_onnxruntime(model, x) if free_batch else (network(x),)
        assert error(read(x), wanted) < 1e-5
        assert error(read(x[:1]), by_onnxruntime(model, x[:1])[0]) < 1e-5


@exports
@pytest.mark.parametrize("name", ["lenet", "resnet", "inception"])
def test_networks_exported_by_dynamo_match_onnxruntime(name, tmp_path):
    network, example = build(name, 3)
    model = exported(network, example.repeat(2, 1, 1, 1)[:2], tmp_path / "net.onnx", True, True)
    read, x = load_onnx(model), torch.randn(5, *example.shape[1:])
    with torch.no_grad():
        assert error(read(x), by_onnxruntime(model, x)[0]) < 1e-5


def test_layers_are_ordinary_ones():
    random = torch.get_rng_state()
    weight = np.ones((2, 3), np.float32)
    read = load_onnx(graph([helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
                           ("n", 2), {"w": weight, "b": np.arange(3, dtype=np.float32)}))  # fmt: skip
    (layer,) = read.children()
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(layer, nn.Linear) and layer.bias.tolist() == [0, 1, 2] and not read.training
    assert read(torch.ones(1, 2)).tolist() == [[2, 3, 4]]


def test_several_outputs_are_a_tuple():
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=1), helper.make_node("Relu", ["b"], ["c"])]
    model = graph(nodes, ("n", 6), opset=11, outputs=("a", "c"))
    x = torch.randn(3, 6)
    for got, wanted in zip(load_onnx(model)(x), by_onnxruntime(model, x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_an_unknown_operator_is_named_with_its_opset():
    model = graph([helper.make_node("Det", ["x"], ["y"], name="odd")], ("n", 2, 2), opset=15)
    with pytest.raises(UnsupportedLayer, match=r"odd: Det of opset 15.*Export"):
        load_onnx(model)
    model = graph([helper.make_node("Relu", ["x"], ["y"], domain="own.domain")], ("n", 2))
    with pytest.raises(UnsupportedLayer, match="own.domain.Relu"):
        load_onnx(model)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match="none.onnx"):
        load_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, share):
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], ("n", 40), {"w": np.ones((40, 30), np.float32)})
    content = model.SerializeToString()
    (tmp_path / "net.onnx").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="net.onnx"):
        load_onnx(tmp_path / "net.onnx")


def test_text_is_no_network(tmp_path):
    (tmp_path / "net.onnx").write_text("This is no network at all.")
    with pytest.raises(CheckpointError, match="net.onnx"):
        load_onnx(tmp_path / "net.onnx")


def test_an_invalid_graph_is_refused():
    model = graph([helper.make_node("Relu", ["nobody"], ["y"])], ("n", 4))
    with pytest.raises(CheckpointError, match="valid"):
        load_onnx(model)


def test_weights_in_another_file_are_read_and_missed(tmp_path):
    weight = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], ("n", 40), {"w": weight})
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = torch.randn(2, 40)
    torch.testing.assert_close(load_onnx(path)(x).detach(), x @ torch.from_numpy(weight))
    with pytest.raises(FileError, match="path"):
        load_onnx(onnx.load(path, load_external_data=False))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FileError, match="weights.bin"):
        load_onnx(path)


def test_without_onnx_the_extra_is_named(monkeypatch):
    def missing(module: str, purpose: str) -> None:
        raise MissingExtra(f"{purpose} needs {module}: pip install 'spokeshave[onnx]'")

    monkeypatch.setattr(onnx_graph, "require", missing)
    with pytest.raises(MissingExtra, match="onnx"):
        load_onnx("net.onnx")


def test_what_onnx_itself_cannot_check_is_read_with_a_warning(monkeypatch):
    def too_large(_: object) -> None:
        raise ValueError("This protobuf of onnx model is too large (>2GiB)")

    monkeypatch.setattr(onnx.checker, "check_model", too_large)
    model = graph([helper.make_node("Relu", ["x"], ["y"])], (1, 3))
    with pytest.warns(UserWarning, match="without ONNX's own check.*2GiB"):
        assert load_onnx(model)(torch.tensor([[-1.0, 0.0, 2.0]])).tolist() == [[0.0, 0.0, 2.0]]
