"""What the map commands share: missing files are named, test images are chosen by class, settings hold no places."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import torch

from spokeshave.cli.mapping_options import require_files, short_name, shown_settings, some_images
from spokeshave.data import Split
from spokeshave.errors import InvalidArgument


def test_missing_files_are_named_by_their_option(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    require_files(weights=there, before=None)
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(InvalidArgument, match=rf"^--first-weights {path}: no such file$"):
            require_files(weights=there, first_weights=path)


@pytest.mark.parametrize(("count", "chosen"), [(0, 40), (40, 40), (99, 40), (8, 8), (1, 1)])
def test_so_many_images_are_chosen_of_all_classes(count: int, chosen: int) -> None:
    labels = torch.arange(40) % 4
    split = Split(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1), labels)
    some = some_images(split, count)
    assert len(some) == chosen and torch.equal(some.images, some_images(split, count).images)
    assert torch.equal(some.labels, some.images.flatten().long() % 4)
    if chosen >= 4:
        assert some.labels.bincount().tolist() == [chosen // 4] * 4


@pytest.mark.parametrize(
    ("model", "name"),
    [("a.b:Net", "Net"), ("/some/where/nets.py:make", "make"), ("../big.pt2", "big.pt2"), ("C", "C")],
)
def test_a_model_has_a_short_name(model: str, name: str) -> None:
    assert short_name(model) == name


class Kind(Enum):
    PLAIN = "plain"


@dataclass
class Options:
    model: str = "a:b"
    out: Path = Path("here")
    weights: Path | None = None
    kind: Kind = Kind.PLAIN
    names: tuple[str, ...] = ()
    sizes: tuple[int, int] = (3, 4)
    levels: int | None = None
    draws: int = 0
    shared: bool = False


def test_settings_are_plain_values_of_what_was_given() -> None:
    shown = shown_settings(Options(weights=Path("w")), ("draws",))
    assert shown == {"kind": "plain", "sizes": [3, 4], "shared": False}
    assert shown_settings(Options())["draws"] == 0
