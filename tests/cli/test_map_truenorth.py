"""map-truenorth through the real command line."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from html_page import Page
from spokeshave.cli.main import main
from spokeshave.cli.map_truenorth import Options, chip_of, images_to_test, measure, network_of, say
from spokeshave.data import Batches, load
from spokeshave.errors import InvalidArgument
from spokeshave.export import export
from spokeshave.models.named_model import load_model
from spokeshave.report.deployed_accuracy import DeployedAccuracy
from spokeshave.targets.truenorth.deployed_network import TrueNorth, shared_hits
from spokeshave.targets.truenorth.ranc_files import read_ranc, read_ranc_output
from spokeshave.targets.truenorth.spike_coding import SpikeCode, encode
from spokeshave.targets.truenorth.spike_simulator import Engine, SpikeSimulator
from spokeshave.targets.truenorth.tea_network import TeaNetwork

NETS = """
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, rs130_bench_4
def net():
    return mnist_bench_1(30)
def wide():
    return mnist_bench_1(10, replicas=2)
def three_classes():
    return rs130_bench_4(30)
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    """A file with networks that are small."""
    (tmp_path / "nets.py").write_text(NETS)
    return str(tmp_path / "nets.py")


def trained(nets: str, steps: int) -> TeaNetwork:
    """On digits, for a moment: enough to be right more often than by chance."""
    network = load_model(f"{nets}:net")
    assert isinstance(network, TeaNetwork)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    batches = Batches(load("digits").train, 100, 0)
    for step in range(steps):
        images, labels = batches.batch(0, step % len(batches))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def test_a_trained_network_gets_a_record_a_page_and_ranc_files(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = trained(nets, 5), trained(nets, 40)
    for name, network in (("before", before), ("after", after)):
        export(network, tmp_path / f"{name}.safetensors")
    out = tmp_path / "new" / "out"
    words = ["map-truenorth", f"{nets}:net", "--weights", str(tmp_path / "after.safetensors"), "--data", "digits"]
    words += ["--before", str(tmp_path / "before.safetensors"), "--images", "100", "--copies", "3", "--draws", "2"]
    assert main([*words, "--spikes-per-frame", "4", "--seed", "7", "--ranc", "--out", str(out)]) == 0
    written = ["map.json", "ranc_config.json", "ranc_input.json", "ranc_output.txt", "report.html"]
    assert sorted(path.name for path in out.iterdir()) == written
    record = json.loads((out / "map.json").read_text())
    assert record["cost"]["cores"] == 12 and record["images"] == 100 and record["accuracy"]["draws"] == 2

    split = load("digits").test.hold_out(100, seed=0)[1]
    images, labels = split.images.flatten(1) / 255, split.labels
    float_accuracy = float((after(images).argmax(1) == labels).double().mean())
    assert record["accuracy"]["float"] == pytest.approx(float_accuracy) and float_accuracy > 0.5
    grids = []
    for seed in (7, 8):
        votes = TrueNorth(3, 4, seed=seed).map(after).votes(images).double()
        right = [
            [shared_hits(votes[:copies, :ticks].sum((0, 1)), labels).mean() for ticks in range(1, 5)]
            for copies in range(1, 4)
        ]
        grids.append(torch.tensor(right))
    mean = torch.tensor(record["accuracy"]["mean"], dtype=torch.float64)
    torch.testing.assert_close(mean, torch.stack(grids).mean(0), rtol=1e-6, atol=0)

    said = capsys.readouterr().out
    assert f"with biasing, float network: right on {100 * float_accuracy:.2f} %" in said
    assert "without biasing, 3 copies, 1 spike per frame: " in said and "12 (0.29 % of the chip)" in said
    assert f"page: {out / 'report.html'}" in said.replace("\n", "")
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert all(word in page.text for word in ("net on neurosynaptic cores", "Gained by biasing", "ranc_input.json"))

    ranc, one = read_ranc(out / "ranc_input.json", out / "ranc_config.json"), TrueNorth(1, 4, seed=7).map(after)
    assert torch.equal(ranc.grid.connections, one.mapped.grid.connections)
    answer = read_ranc_output(out / "ranc_output.txt")
    assert torch.equal(SpikeSimulator(ranc.grid, ranc.inputs(), Engine.TORCH).run(ranc.spikes(), 4).outputs[0], answer)
    spikes = encode(images[:1], 4, SpikeCode.STOCHASTIC, np.random.default_rng(7))
    assert torch.equal(SpikeSimulator(one.mapped.grid, one.mapped.inputs).run(spikes).outputs[0], answer)


def test_without_data_there_are_price_and_pictures_only(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["map-truenorth", f"{nets}:net", "--copies", "2", "--spikes-per-frame", "3", "--draws", "4", "--seed", "11"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "map.json").read_text())
    assert record["accuracy"] is None and record["before_accuracy"] is None and record["spikes_per_image"] > 0
    assert "right on" not in capsys.readouterr().out
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "2 copies, 8 cores: load of the mesh" in page.text and "Accuracy" not in page.text
    settings = page.text.split("--out")[-1].split()
    assert "spikes_per_frame" in settings and not {"draws", "images", "weights", "data"} & set(settings)


def test_options_reach_the_chip() -> None:
    options = Options(
        "", copies=3, spikes_per_frame=5, code=SpikeCode.RATE, shared_input=True, chip_side=9,
        engine=Engine.TORCH, seed=4,
    )  # fmt: skip
    assert chip_of(options) == TrueNorth(3, 5, SpikeCode.RATE, True, 9, Engine.TORCH, 4)
    assert chip_of(Options("")) == TrueNorth(16, 16)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["torch.nn:Identity"], "Identity: neurosynaptic cores hold networks of Tea layers only"),
        (["torch.nn:Identity", "--weights", "none.safetensors"], "--weights none.safetensors: no such file"),
        (["NETS:net", "--before", "gone.safetensors"], "--before gone.safetensors: no such file"),
        (["NETS:net", "--copies", "0"], "expected at least 1, got 0, 16 and 64"),
        (
            ["NETS:net", "--copies", "5", "--chip-side", "4"],
            "5 of 4 cores take 20 of the 16 cores of the chip; 1..4 fit",
        ),
        (["NETS:net", "--draws", "0"], "--draws of 1 or more"),
        (["NETS:net", "--images", "-1"], "--images of 0 or more"),
        (["NETS:net", "--data", "nothing"], "no data set is called 'nothing'"),
        (["NETS:three_classes", "--data", "digits"], "the network takes 361 pixels and votes for 3 classes"),
    ],
)
def test_mistakes_are_answered(
    words: list[str], says: str, nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("NETS", nets) for word in words]
    assert main(["map-truenorth", *words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "map.json").exists()


def test_weights_of_another_network_are_refused(nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(torch.nn.Linear(2, 2), tmp_path / "linear.safetensors")
    for option in ("--weights", "--before"):
        words = ["map-truenorth", f"{nets}:net", option, str(tmp_path / "linear.safetensors")]
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        assert "does not fit TeaNetwork" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_first(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["map-truenorth", f"{nets}:gone", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "writing to" in capsys.readouterr().err


def test_images_are_fed_as_shares_and_more_classes_than_votes_are_refused(nets: str) -> None:
    network = trained(nets, 0)
    batches = images_to_test(Options("", data="digits", images=20), network)
    (fed, _), *more = batches
    assert not more and len(batches.split) == 20
    torch.testing.assert_close(fed, batches.split.images / 255)
    assert float(fed.max()) == 1
    few = copy.deepcopy(network)
    few.form[1] = 9
    with pytest.raises(InvalidArgument, match=r"\(784 pixels\) in 10 classes; .* votes for 9 classes"):
        images_to_test(Options("", data="digits"), few)


def test_what_is_said_of_one_draw_and_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    grid = torch.tensor([[[0.8, 0.9], [0.9, 0.95]]], dtype=torch.float64)
    say(Console(width=300), DeployedAccuracy(0.96, grid), "")
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "float network: right on 96.00 %",
        "1 copy, 1 spike per frame: 80.00 %",
        "1 copy, 2 spikes per frame: 90.00 %",
    ]
    assert said[-1].endswith(
        "(95.00 %): at 1 spike per frame no number of copies, with 1 copy no number of spikes per frame"
    )
    say(Console(width=300), DeployedAccuracy(0.96, torch.cat([grid, grid + 0.02])), "with biasing, ")
    assert "with biasing, 2 copies, 2 spikes per frame: 96.00 +- 1.41 %" in capsys.readouterr().out


def test_the_first_draw_is_the_one_that_was_made(nets: str) -> None:
    network, chip = trained(nets, 0), TrueNorth(2, 2, seed=3)
    test = images_to_test(Options("", data="digits", images=50), network)
    alone, given = measure(network, chip, test, 2), measure(network, chip, test, 2, chip.map(network))
    assert torch.equal(alone.draws, given.draws) and not torch.equal(alone.draws[0], alone.draws[1])
    assert torch.equal(alone.draws[1], TrueNorth(2, 2, seed=4).map(network).accuracy_grid(test))


def test_a_file_of_weights_is_a_network_by_itself(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained(nets, 3)
    export(network, tmp_path / "tea.safetensors", torch.rand(1, 784))
    assert torch.equal(network_of(str(tmp_path / "tea.safetensors"))(torch.ones(1, 784)), network(torch.ones(1, 784)))
    assert (
        main(["map-truenorth", str(tmp_path / "tea.safetensors"), "--copies", "1", "--out", str(tmp_path / "out")]) == 0
    )
    whole = (tmp_path / "tea.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    export(torch.nn.Linear(2, 2), tmp_path / "other.safetensors", torch.rand(1, 2))
    for name, message in (
        ("cut", "expected a whole .safetensors file"),
        ("other", "not the weights of a whole Tea network"),
        ("none", "no such file"),
    ):  # fmt: skip
        capsys.readouterr()
        assert main(["map-truenorth", str(tmp_path / f"{name}.safetensors"), "--out", str(tmp_path / "out")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{name}.safetensors" in said and message in said


def test_networks_with_replicas_are_mapped_too(nets: str, tmp_path: Path) -> None:
    words = [
        "map-truenorth",
        f"{nets}:wide",
        "--copies",
        "2",
        "--spikes-per-frame",
        "2",
        "--ranc",
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    network = read_ranc(tmp_path / "ranc_input.json", tmp_path / "ranc_config.json")
    got = SpikeSimulator(network.grid, network.inputs()).run(network.spikes(), 2).outputs[0]
    assert network.grid.cores == 8 and torch.equal(got, read_ranc_output(tmp_path / "ranc_output.txt"))
