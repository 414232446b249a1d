"""bench-cpu through the real command line."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cpu_benchmark_cases import needs_generated_code
from html_page import Page
from spokeshave.cli.main import main
from spokeshave.export import export
from spokeshave.models import LeNet

LENET = "spokeshave.models.lenet:LeNet"


@needs_generated_code
def test_lenet_gets_a_record_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    model = LeNet()
    with torch.no_grad():
        model.get_submodule("conv2").get_parameter("weight").zero_()[0, 0, 0, 0] = 1.0
    export(model, tmp_path / "weights.safetensors")
    out = tmp_path / "new" / "out"
    words = ["bench-cpu", LENET, "--input", "1,28,28", "--batch", "2", "--repeats", "1", "--sweep", "1"]
    words += ["--weights", str(tmp_path / "weights.safetensors"), "--out", str(out)]
    assert main(words) == 0
    record = json.loads((out / "bench.json").read_text())
    densities = {layer["layer"]: layer["density"] for layer in record["layers"]}
    assert densities["conv2"] == pytest.approx(1 / 25000) and densities["ip2"] > 0.99
    assert record["settings"]["batch"] == 2 and record["command"].startswith(f"spokeshave bench-cpu {LENET}")
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert all(name in page.text for name in ("LeNet on this CPU", "conv1", "conv2", "ip1", "ip2"))
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "report.html"]
    said = capsys.readouterr().out
    assert "conv2" in said and f"page: {out / 'report.html'}" in said.replace("\n", "")


@needs_generated_code
def test_an_onnx_file_is_measured_as_the_network_that_it_holds(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    export(model, tmp_path / "net.onnx", torch.randn(2, 1, 8, 8))
    words = ["bench-cpu", str(tmp_path / "net.onnx"), "--input", "1,8,8", "--batch", "2", "--repeats", "1"]
    assert main([*words, "--sweep", "0", "--prune", "0.5", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [layer["kind"] for layer in record["layers"]] == ["convolution", "linear"]
    assert [layer["density"] for layer in record["layers"]] == [0.5, 0.5]


@needs_generated_code
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([LENET, "--input", "nonsense"], "such as 1,28,28"),
        (["spokeshave.models.lenet:LeNett", "--input", "1,28,28"], "did you mean LeNet"),
        ([LENET, "--input", "3,28,28"], "LeNet"),
        ([LENET, "--input", "1,28,28", "--prune", "1.5"], "from 0 to below 1, got 1.5"),
        ([LENET, "--input", "1,28,28", "--batch", "0"], "batch: expected at least 1"),
        ([LENET, "--input", "1,28,28", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["net.onnx", "--input", "1,28,28"], "net.onnx"),
        (["net.pt2", "--input", "1,28,28"], "name the module that it was exported from"),
        (["torch.nn:Identity", "--input", "1,28,28"], "no layer of this model"),
    ],
)
def test_mistakes_are_answered(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-cpu", *words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["bench-cpu", "no.such:model", "--input", "3", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "choose another path" in capsys.readouterr().err
