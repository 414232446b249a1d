"""map-crossbar through the real command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from html_page import Page
from spokeshave.cli.main import main
from spokeshave.cli.map_crossbar import DeviceKind, Options, chip_of, images_to_test
from spokeshave.export import export
from spokeshave.models import LeNet
from spokeshave.targets.crossbar.mapped_network import load_crossbars

LENET = "spokeshave.models.lenet:LeNet"


def test_lenet_gets_its_files_a_sweep_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    net = LeNet()
    export(net, tmp_path / "weights.safetensors")
    out = tmp_path / "new" / "out"
    words = ["map-crossbar", LENET, "--input", "1,28,28", "--weights", str(tmp_path / "weights.safetensors")]
    words += ["--data", "digits", "--images", "60", "--sweep", "0", "0.2", "--draws", "2", "--device", "one-level"]
    assert main([*words, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["crossbars.json", "crossbars.npz", "map.json", "report.html"]
    record = json.loads((out / "map.json").read_text())
    assert record["cost"]["crossbars"] == 121 and record["mapping"]["crossbars"] == 242 and record["images"] == 60
    assert [len(point["errors"]) for point in record["points"]] == [1, 2]
    states = np.unique(np.round(np.load(out / "crossbars.npz")["conv2.g_plus"] * 1e6, 3))
    assert states.tolist() == [0, 1, 100]  # no cell, off, on; microsiemens
    x = torch.randn(2, 1, 28, 28)
    mapped = load_crossbars(out, net)
    torch.testing.assert_close(mapped(x), chip_of(Options("", "", device=DeviceKind.ONE_LEVEL)).map(net)(x))
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert all(word in page.text for word in ("LeNet on crossbars", "conv1", "ip2", "Accuracy against variation"))
    said = capsys.readouterr().out
    assert "variation 0.2: test error" in said and f"page: {out / 'report.html'}" in said.replace("\n", "")


def test_options_reach_the_chip() -> None:
    options = Options(
        "", "", size=(8, 9), device=DeviceKind.N_LEVEL, levels=3, on_off_ratio=10.0, variation=0.1, stuck_on=0.01,
        stuck_off=0.02, read_noise=0.03, wire_resistance_ohm=4.0, dac_bits=5, adc_bits=6, exclude=("fc",), seed=7,
    )  # fmt: skip
    chip = chip_of(options)
    device = chip.device
    assert (chip.size, chip.wire_resistance_ohm, chip.exclude, chip.seed) == ((8, 9), 4.0, ("fc",), 7)
    assert (device.levels, device.variation, device.stuck_on, device.stuck_off) == (3, 0.1, 0.01, 0.02)
    assert (device.read_noise, device.on_off_ratio) == (0.03, pytest.approx(10))
    assert (chip.converters.dac_bits, chip.converters.adc_bits) == (5, 6)
    assert chip_of(Options("", "")).device.levels is None and chip_of(Options("", "")).device.g_min_s == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([LENET, "--input", "nonsense"], "such as 1,28,28"),
        ([LENET, "--input", "1,28,28", "--draws", "0"], "at least one draw"),
        ([LENET, "--input", "1,28,28", "--stuck-on", "2"], "stuck_on"),
        ([LENET, "--input", "1,28,28", "--levels", "4"], "goes with --device n-level only"),
        ([LENET, "--input", "1,28,28", "--weights", "none.safetensors"], "none.safetensors: no such file"),
        ([LENET, "--input", "1,28,28", "--sweep", "0", "-0.1"], "--sweep: expected variations of 0 or more"),
        ([LENET, "--input", "1,28,28", "--exclude", "fc*"], "fc*"),
        ([LENET, "--input", "3,28,28", "--dac-bits", "8"], "example"),
        ([LENET, "--input", "3,32,32", "--data", "digits"], "have shape (1, 28, 28)"),
        ([LENET, "--input", "1,28,28", "--data", "digits", "--mean", "0.1"], "both or neither"),
        (["torch.nn:Identity", "--input", "3"], "no layer to map"),
    ],
)
def test_mistakes_are_answered(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map-crossbar", *words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "crossbars.json").exists()


def test_settings_that_say_nothing_without_data_are_left_out(tmp_path: Path) -> None:
    assert main(["map-crossbar", "torch.nn:Identity", "--input", "3", "--out", str(tmp_path)]) == 2
    words = ["map-crossbar", LENET, "--input", "1,28,28", "--draws", "3", "--seed", "11", "--out", str(tmp_path)]
    assert main(words) == 0
    settings = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text.split("--out")[-1].split()
    assert "seed" in settings and not {"sweep", "draws", "images", "levels"} & set(settings)


def test_images_are_fed_as_the_model_was() -> None:
    options = Options("", "1,28,28", data="digits", mean=(0.25,), std=(0.5,), images=20)
    batches, example = images_to_test(options, (1, 28, 28))
    (fed, _), *more = batches
    assert not more and len(batches.split) == 20 and torch.is_tensor(example)
    torch.testing.assert_close(fed, (batches.split.images / 255 - 0.25) / 0.5)
