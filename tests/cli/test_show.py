import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from exchange_cases import made_up
from spokeshave.cli.main import main
from spokeshave.measure import compare, measure
from spokeshave.report.run_record import Outcome, RunRecord


@pytest.fixture(scope="module")
def record() -> RunRecord:
    after, example = nn.Linear(10, 10, bias=False), torch.zeros(1, 10)
    before = nn.Sequential(nn.Linear(10, 90, bias=False), nn.Linear(90, 10, bias=False))
    counts = {"threads": (1,), "batch_sizes": (1,), "repeats": 3}
    return RunRecord(
        recipe="ssl",
        row="lenet-3",
        title="LeNet, Table 1 #3",
        config={},
        seeds=[0, 1, 2],
        versions={},
        machine={},
        commit="abc1234",
        wall_s=61.4,
        baseline=Outcome(0.991, 0.009, measure(before, example, **counts)),
        final=Outcome(0.9905, 0.0095, measure(after, example, **counts)),
        comparison=compare(before, after, example, **counts),
        paper={"error": 0.01, "filters": "3-12"},
    )


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: RunRecord) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    record.save(tmp_path / "runs" / "demo")
    return tmp_path / "runs"


@pytest.mark.parametrize("named", ["demo", "runs/demo", "runs/demo/run.json"])
def test_run_is_found_by_name_folder_and_file(runs: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", named]) == 0
    shown = capsys.readouterr().out
    for expected in ("LeNet, Table 1 #3", "0.90", "0.95", "1,800", "18.0x", "3-12", "abc1234", "0-1-2", "61 s"):
        assert expected in shown
    assert "page: runs/demo/report.html" in shown


def test_what_is_unknown_is_left_out(runs: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    replace(record, commit=None, paper=None).save(runs / "bare")
    assert main(["show", "bare"]) == 0
    shown = capsys.readouterr().out
    assert "commit" not in shown
    assert "paper" not in shown


def test_absent_run_names_those_that_are_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dem"]) == 2
    assert "demo" in capsys.readouterr().err
    (runs / "half").mkdir()
    assert main(["show", "half"]) == 2
    assert "has not finished" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "", json.dumps({"schema": 1})])
def test_damaged_run_says_which_file(runs: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "demo" / "run.json").write_text(content)
    assert main(["show", "demo"]) == 2
    assert "run.json" in capsys.readouterr().err


def test_a_comparison_of_gradients_is_shown_in_its_own_words(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up().save(runs / "terngrad")
    assert main(["show", "terngrad"]) == 0
    shown = capsys.readouterr().out
    for expected in ("1.30 ± 0.10 %", "+0.20 ± 0.10 points", "zero codes", "abc1234", "0-1-2", "61 s", "gap"):
        assert expected in shown
    (runs / "terngrad" / "run.json").write_text('{"kind": "exchange"}')
    assert main(["show", "terngrad"]) == 2
    assert "missing fields" in capsys.readouterr().err
