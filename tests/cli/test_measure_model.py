import json
from pathlib import Path

import pytest

from spokeshave.cli.main import main
from spokeshave.cli.measure_model import parse_shape
from spokeshave.errors import InvalidArgument

LENET_PARAMETERS = 20 * 25 + 20 + 50 * 500 + 50 + 500 * 800 + 500 + 10 * 500 + 10


def test_counts_of_lenet_are_those_of_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "numbers.json"
    words = ["measure", "spokeshave.models.lenet:LeNet", "--input", "1,28,28", "--no-latency", "--json", str(file)]
    assert main(words) == 0
    numbers = json.loads(file.read_text())["measurement"]
    assert numbers["parameters"] == LENET_PARAMETERS
    assert numbers["flops"] == 2 * (20 * 25 * 24 * 24 + 50 * 500 * 8 * 8 + 500 * 800 + 10 * 500)
    assert f"{LENET_PARAMETERS:,} parameters" in capsys.readouterr().out


def test_two_models_are_timed_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "numbers.json"
    words = ["measure", "spokeshave.models.lenet:LeNet", "--input", "1,28,28", "--against", "torch.nn:Identity"]
    words += ["--repeats", "5", "--batch-sizes", "1", "--threads", "1", "--json", str(file)]
    assert main(words) == 0
    (row,) = json.loads(file.read_text())["comparison"]["rows"]
    assert row["ratio"] > 2
    assert "times faster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["torch.nn:ReLU", "--input", "nonsense"], "such as 1,28,28"),
        (["spokeshave.models.lenet:LeNet", "--input", "3,5", "--no-latency"], "fails on an example of shape"),
        (["torch.nn:ReLU", "--input", "3", "--no-latency", "--against", "torch.nn:ReLU"], "leave --no-latency out"),
    ],
)
def test_mistakes_are_answered(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("text", "shape"), [("1,28,28", (1, 28, 28)), ("3x32x32", (3, 32, 32)), ("(784,)", (784,))])
def test_shape(text: str, shape: tuple[int, ...]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "a,b", "0,3", "-1,2", "1.5"])
def test_shape_that_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="such as 1,28,28"):
        parse_shape(text)
