"""`spokeshave adapt` on two small folders, as a user runs it; and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.cli.main import main
from spokeshave.data import Split, Splits
from spokeshave.export import load_safetensors, safetensors_bytes
from spokeshave.models import SmallCNN

MODEL = """
from spokeshave.models import SmallCNN
def net():
    return SmallCNN(1, 28, 8, 32, 10, batch_norm=True)
"""


def write(folder: Path, split: Split, classes: bool) -> None:
    for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
        inside = folder / str(label) if classes else folder
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image[0])).save(inside / f"{number:03}.png")


@pytest.fixture
def folders(tmp_path: Path, splits: Splits) -> list[str]:
    few = splits.train.subset(torch.arange(200))
    write(tmp_path / "source", few, True)
    dark = Split((splits.test.images[:60].float() * 0.4 + 90).to(torch.uint8), splits.test.labels[:60])
    write(tmp_path / "target", dark, True)
    write(tmp_path / "plain", dark, False)
    (tmp_path / "nets.py").write_text(MODEL)
    return [
        "adapt", "--source", str(tmp_path / "source"), "--target", str(tmp_path / "target"),
        "--model", f"{tmp_path / 'nets.py'}:net", "--size", "28", "--channels", "1", "--epochs", "3",
        "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip


def test_weights_answers_and_accuracy(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "target" / "3" / "broken.png").write_bytes(b"no image")
    assert main(folders) == 0
    said = capsys.readouterr().out
    assert "target: 60 images with labels" in said and "accuracy on the target: " in said
    assert "left out, damaged: 1" in said and "broken.png" in said
    load_safetensors(SmallCNN(1, 28, 8, 32, 10, batch_norm=True), tmp_path / "run" / "adapted.safetensors")
    rows = list(csv.DictReader((tmp_path / "run" / "answers.csv").read_text().splitlines()))
    assert len(rows) == 60 and {row["answer"] for row in rows} <= set("0123456789")
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert main(folders) == 2  # another run would be written over
    assert "already holds a run" in capsys.readouterr().err


def test_the_same_answers_without_labels(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(folders) == 0
    capsys.readouterr()
    plain = [str(tmp_path / "plain") if word == str(tmp_path / "target") else word for word in folders]
    plain[-1] = str(tmp_path / "other")
    assert main(plain) == 0
    said = capsys.readouterr().out
    assert "60 images without labels" in said and "accuracy" not in said
    # Images lie in another order here, so batches differ: the answers are written for every file all the same.
    assert len((tmp_path / "other" / "answers.csv").read_text().splitlines()) == 61


def test_a_network_of_too_few_classes_is_refused(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(MODEL.replace("32, 10", "32, 4"))
    assert main(folders) == 2
    assert "SmallCNN gives 4 numbers an image, and the source has 10 classes" in capsys.readouterr().err
    (tmp_path / "nets.py").write_text(MODEL.replace("32, 10", "32, 1000"))
    assert main(folders) == 2
    assert "SmallCNN gives 1000 numbers an image" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_images_that_the_network_cannot_take_are_named(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*folders, "--size", "40"]) == 2
    assert "SmallCNN fails on images of shape (1, 40, 40)" in capsys.readouterr().err


def test_what_the_adapted_network_is_fed_is_written(folders: list[str], tmp_path: Path) -> None:
    assert main([*folders, "--epochs", "1"]) == 0
    facts = json.loads((tmp_path / "run" / "adapted.json").read_text())
    network = SmallCNN(1, 28, 8, 32, 10, batch_norm=True).eval()
    load_safetensors(network, tmp_path / "run" / "adapted.safetensors")
    rows = list(csv.DictReader((tmp_path / "run" / "answers.csv").read_text().splitlines()))
    for row in rows[:5]:
        image = torch.from_numpy(np.array(Image.open(row["file"])))[None, None]
        found = network((image / 255 - facts["mean"][0]) / facts["std"][0])
        assert facts["classes"][int(found.argmax())] == row["answer"]


def test_other_weights_are_not_gone_on_from(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = SmallCNN(1, 28, 8, 32, 10, batch_norm=True)
        (tmp_path / f"{seed}.safetensors").write_bytes(safetensors_bytes(network))
    begun = [*folders, "--epochs", "1", "--weights", str(tmp_path / "0.safetensors")]
    assert main(begun) == 0
    other = [*begun[:-1], str(tmp_path / "1.safetensors"), "--resume"]
    assert main(other) == 2
    assert "began with other weights" in capsys.readouterr().err
    assert main([*begun, "--resume"]) == 0


def test_a_link_to_nothing_is_a_damaged_image(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "target" / "3" / "moved.png").symlink_to(tmp_path / "nowhere.png")
    assert main([*folders, "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "left out, damaged: 1" in said and "moved.png (0 bytes)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mmd", "-1"], "mmd: expected a weight of at least 0"),
        (["--weights", "nowhere.safetensors"], "--weights nowhere.safetensors: no such file"),
        (["--size", "0"], "size"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_options_are_refused(
    folders: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*folders, *words]) == 2
    assert said in capsys.readouterr().err
