from pathlib import Path

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.export import export
from spokeshave.models.named_model import load_model

NETS = """
import torch
from torch import nn

def tiny():
    return nn.Linear(3, 2)

ready = nn.ReLU()
number = 7

def needs(argument):
    return nn.ReLU()

def gives_text():
    return "text"
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my_nets_for_test.py"
    file.write_text(NETS)
    return file


def test_factory_of_a_file(nets: Path) -> None:
    model = load_model(f"{nets}:tiny")
    assert isinstance(model, nn.Linear)
    assert model.in_features == 3


def test_factory_of_a_module_in_the_current_folder(nets: Path) -> None:
    assert isinstance(load_model("my_nets_for_test:tiny"), nn.Linear)


def test_class_and_ready_module(nets: Path) -> None:
    assert isinstance(load_model("torch.nn:ReLU"), nn.ReLU)
    assert isinstance(load_model(f"{nets}:ready"), nn.ReLU)


@pytest.mark.filterwarnings("ignore")  # torch's export warns of its own internals
def test_saved_program(tmp_path: Path) -> None:
    linear = nn.Linear(3, 2).eval()
    torch.export.save(torch.export.export(linear, (torch.zeros(1, 3),)), tmp_path / "net.pt2")
    images = torch.randn(1, 3)
    torch.testing.assert_close(load_model(str(tmp_path / "net.pt2"))(images), linear(images))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("tiny", "names no model: write package.module:factory"),
        ("my_nets_for_test:tini", "did you mean tiny"),
        ("my_nets_for_test:number", "is a int"),
        ("my_nets_for_test:needs", "called without arguments"),
        ("my_nets_for_test:gives_text", "gave a str"),
        ("no_such_module_at_all:net", "no module 'no_such_module_at_all'"),
        ("absent.py:net", "there is no file absent.py"),
        ("absent.pt2", "there is no file absent.pt2"),
        ("broken.pt2", "is not a torch.export program"),
        ("broken.py:net", "SyntaxError"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_loaded_says_why(nets: Path, named: str, says: str) -> None:
    (nets.parent / "broken.pt2").write_text("no zip")
    (nets.parent / "broken.py").write_text("def (")
    with pytest.raises(InvalidArgument, match=says.replace("(", r"\(")):
        load_model(named)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_program_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "net.pt2"
    export(nn.Sequential(nn.Linear(200, 300)), path, torch.zeros(1, 200))
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidArgument, match="truncated or damaged"):
        load_model(str(path))
