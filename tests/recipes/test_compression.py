import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from spokeshave.cli.main import main
from spokeshave.data import load
from spokeshave.errors import InvalidArgument
from spokeshave.recipes import compression
from spokeshave.recipes.compression import Config, last_layer, load_splits

NET = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )

def wrong_input():
    return nn.Linear(3, 10)

def wrong_output():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 4))
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    file = tmp_path / "nets.py"
    file.write_text(NET)
    return file


def test_own_model_gets_smaller_within_the_drop(nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["compress", f"{nets}:net", "--data", "digits", "--max-drop", "3", "--out", str(out), "--tries", "3"]
    words += ["--baseline-epochs", "4", "--ssl-epochs", "4", "--finetune-epochs", "2", "--strength", "0.02"]
    assert main(words) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["final"]["measurement"]["flops"] < record["baseline"]["measurement"]["flops"]
    assert 1 <= len(record["points"]) <= 3
    chosen = [point for point in record["points"] if point["strength"] == record["config"]["chosen_strength"]]
    assert chosen[0]["flops"] == record["final"]["measurement"]["flops"]
    assert chosen[0]["error"] == record["final"]["error"]
    assert (out / "report.html").stat().st_size > 10_000

    small = torch.export.load(out / "small.pt2").module()
    digits = load("digits")
    training, _ = digits.hold_out(0.15, seed=0)
    images = compression._normalization(Config("x"), training)(digits.test.images)
    right = sum(
        int(small(image[None]).argmax()) == int(label) for image, label in zip(images, digits.test.labels, strict=True)
    )
    assert right / len(digits.test) == pytest.approx(record["final"]["accuracy"], abs=0.01)

    assert main(words) == 2  # nothing that is finished is overwritten
    assert "--resume" in capsys.readouterr().err


def test_stopped_run_goes_on_to_the_same_result(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def words(out: str, *more: str) -> list[str]:
        smoke = ["--smoke", "--out", str(tmp_path / out)]
        return ["compress", f"{nets}:net", "--data", "digits", *smoke, *more]

    assert main(words("whole")) == 0

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compression, "shrink", stop)
        assert main(words("cut")) == 130
    assert main(words("cut", "--resume")) == 0
    whole, cut = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut"))
    assert cut["final"]["accuracy"] == whole["final"]["accuracy"]
    assert cut["points"] == whole["points"]
    kept, again = (load_file(tmp_path / name / "small.safetensors") for name in ("whole", "cut"))
    assert kept.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{nets}:wrong_input"], "cannot take the images of this data set (1x28x28)"),
        (["{nets}:wrong_output"], "scores of shape (batch, 10 or more)"),
        (["{nets}:net", "--data", "digit"], "neither a folder nor one of digits"),
        (["{nets}:net", "--tries", "0"], "--tries 0"),
        (["{nets}:net", "--mean", "0.5", "0.5"], "a number a channel"),
        (["{nets}:nett"], "did you mean net"),
    ],
)
def test_mistakes_are_answered_before_anything_is_trained(
    words: list[str], says: str, nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compress", *(word.format(nets=nets) for word in words), "--out", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_classifier_is_the_layer_that_runs_last_not_the_one_declared_last() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.body = nn.Linear(3, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(inputs))

    net = Net()
    assert last_layer(net, torch.zeros(1, 3)) == "head"
    assert net.training
    with pytest.raises(InvalidArgument, match="nothing to pull"):
        last_layer(nn.ReLU(), torch.zeros(1, 3))


def test_data_set_by_name() -> None:
    assert len(load_splits(Config("x", data="digits")).classes) == 10
