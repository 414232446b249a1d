"""What a comparison of arms leaves: its numbers by hand, the printed table, the ledger's row."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from arms_cases import made_up
from exchange_cases import history
from spokeshave import arms_output
from spokeshave.arms_output import Scored, print_arms, write_arms, write_arms_ledger
from spokeshave.cli.main import main
from spokeshave.evaluation import Evaluation
from spokeshave.report.arms_record import ArmsRecord


def scored(accuracy: float, stages: tuple[str, ...], **numbers: float) -> Scored:
    found = {stage: history(10, accuracy) for stage in stages}
    return Scored("words", Evaluation(accuracy - 0.01, 0.1, 50), Evaluation(accuracy, 0.1, 100), numbers, found)


def test_the_record_holds_what_the_seeds_gave(tmp_path: Path) -> None:
    seeds = {
        seed: {"float": scored(0.9, ("float",)), "main": scored(0.8, ("float", "pull"), zero_share=0.1 * seed)}
        for seed in (3, 4)
    }
    record = write_arms(
        seeds, tmp_path / "run", recipe="r", row="demo", title="t", headline="main", config={"a": 1}, data="digits",
        quantities={"zero_share": "zeros"},
    )  # fmt: skip
    assert record.seeds == [3, 4] and [arm.name for arm in record.arms] == ["float", "main"]
    assert record.main.errors == pytest.approx([0.2, 0.2]) and record.main.validation_errors == pytest.approx(
        [0.21] * 2
    )
    assert record.main.number("zero_share") == pytest.approx(0.35)
    assert record.wall_s == 4 * 30, "two stages of two seeds, each once"
    assert list(record.history) == ["float", "pull"]
    assert ArmsRecord.load(tmp_path / "run" / "run.json") == record
    assert (tmp_path / "run" / "report.html").stat().st_size > 5000


def test_the_table_shows_every_arm_and_show_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(record=True, width=200)
    print_arms(made_up(), tmp_path, console)
    shown = console.export_text()
    for words in ("1.10 ± 0.10 %", "62.00 ± 2.00 %", "+0.20 ± 0.10 points", "+0.19 points", "quantized, no more"):
        assert words in shown
    made_up().save(tmp_path)
    assert main(["show", str(tmp_path)]) == 0
    assert "One level: lenet on mnist" in capsys.readouterr().out


def test_the_ledgers_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}

    def keep(recipe, row, config, numbers, **others):
        written.update(numbers, recipe=recipe, row=row, seeds=others["seeds"])
        return tmp_path / "row.json"

    monkeypatch.setattr(arms_output, "write_row", keep)
    write_arms_ledger(made_up(), tmp_path)
    assert (written["recipe"], written["row"], written["seeds"]) == ("one_level", "lenet", [0, 1, 2])
    tuned = written["arms"]["tuned"]
    assert tuned["gap_points"] == pytest.approx(0.2) and tuned["gap_points_spread"] == pytest.approx(0.1)
    assert tuned["error"] == pytest.approx(0.013) and tuned["numbers"] == {"zero_share": 0.5, "cells": 1200}
    assert written["published"]["gap"] == {"tuned": 0.19} and written["headline"] == "tuned"
    assert json.loads(json.dumps(written))
