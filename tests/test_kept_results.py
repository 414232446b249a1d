"""Results that a run finds again, and those that it does not take over."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spokeshave.kept_results import kept_or_made, kept_or_made_tensors


def test_a_result_is_made_once_for_each_key(tmp_path: Path) -> None:
    path, made = tmp_path / "folder" / "found.json", []

    def ask(seed: int, look: bool = True) -> list[float]:
        def make() -> list[float]:
            made.append(seed)
            return [seed / 2]

        return kept_or_made(path, {"seed": seed, "sizes": (1, 2)}, make, list, list, look)

    assert [ask(1), ask(1), ask(3), ask(1)] == [[0.5], [0.5], [1.5], [0.5]]
    assert made == [1, 3, 1]  # a file holds the latest key only
    assert ask(1, look=False) == [0.5] and made == [1, 3, 1, 1]


@pytest.mark.parametrize("damage", ["", "{", '{"key": {"seed": 1}}', '{"key": {"seed": 1}, "result": "x"}', "[1]"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(damage)
    with pytest.warns(RuntimeWarning, match="found.json is damaged .* measured anew"):
        assert kept_or_made(path, {"seed": 1}, lambda: 2.5, float, float) == 2.5
    assert json.loads(path.read_text())["result"] == 2.5


def test_tensors_are_kept_with_their_numbers(tmp_path: Path) -> None:
    path, made = tmp_path / "found.safetensors", []

    def ask(seed: int, look: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        def make() -> tuple[dict[str, torch.Tensor], dict[str, float]]:
            made.append(seed)
            return {"images": torch.full((2, 3), seed / 2)}, {"seconds": 1.5 * seed}

        return kept_or_made_tensors(path, {"seed": seed}, make, look)

    for seed in (1, 1, 2):
        tensors, numbers = ask(seed)
        assert tensors["images"].tolist() == [[seed / 2] * 3] * 2 and numbers == {"seconds": 1.5 * seed}
    assert made == [1, 2]
    ask(2, look=False)
    assert made == [1, 2, 2]
    for damage in (lambda: path.write_bytes(b"x"), lambda: path.write_bytes(path.read_bytes()[:-4]),
                   lambda: save_file(load_file(path), path), lambda: path.write_bytes(_flipped(path))):  # fmt: skip
        damage()
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert ask(2)[0]["images"].tolist() == [[1.0] * 3] * 2
    assert made == [1, 2, 2, 2, 2, 2, 2]


def _flipped(path: Path) -> bytes:
    """The file with one bit of its last tensor changed."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    return bytes(content)
