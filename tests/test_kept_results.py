"""Results that a run finds again, and those that it does not take over."""

import json
from pathlib import Path

import pytest

from spokeshave.kept_results import kept_or_made


def test_a_result_is_made_once_for_each_key(tmp_path: Path) -> None:
    path, made = tmp_path / "folder" / "found.json", []

    def ask(seed: int) -> list[float]:
        def make() -> list[float]:
            made.append(seed)
            return [seed / 2]

        return kept_or_made(path, {"seed": seed, "sizes": (1, 2)}, make, list, list)

    assert [ask(1), ask(1), ask(3), ask(1)] == [[0.5], [0.5], [1.5], [0.5]]
    assert made == [1, 3, 1]  # a file holds the latest key only


@pytest.mark.parametrize("damage", ["", "{", '{"key": {"seed": 1}}', '{"key": {"seed": 1}, "result": "x"}', "[1]"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(damage)
    assert kept_or_made(path, {"seed": 1}, lambda: 2.5, float, float) == 2.5
    assert json.loads(path.read_text())["result"] == 2.5
