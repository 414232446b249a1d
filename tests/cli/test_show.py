import json
from pathlib import Path

import pytest

from spokeshave.cli.main import main

RECORD = {
    "recipe": "ssl",
    "row": "lenet-3",
    "title": "LeNet, Table 1 #3",
    "seeds": [0, 1, 2],
    "commit": "abc1234",
    "wall_s": 61.4,
    "paper": {"error": 0.01, "filters": [3, 12]},
    "baseline": {"error": 0.009, "measurement": {"parameters": 431080, "bytes": 1724320, "flops": 4586000}},
    "final": {"error": 0.0095, "measurement": {"parameters": 43108, "bytes": 172432, "flops": 458600}},
    "comparison": {"rows": [{"batch_size": 1, "threads": 1, "before_s": 0.002, "after_s": 0.0005, "ratio": 4.0}]},
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "run.json").write_text(json.dumps(RECORD))
    return tmp_path / "runs"


@pytest.mark.parametrize("named", ["demo", "runs/demo", "runs/demo/run.json"])
def test_run_is_found_by_name_folder_and_file(runs: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "demo" / "report.html").write_text("<html>")
    assert main(["show", named]) == 0
    shown = capsys.readouterr().out
    for expected in ("LeNet, Table 1 #3", "0.90 %", "0.95 %", "431,080", "10.00x", "4.00x", "3-12", "abc1234", "61 s"):
        assert expected in shown
    assert "page: runs/demo/report.html" in shown


def test_run_without_a_page_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "demo"]) == 0
    assert "no page yet" in capsys.readouterr().out


def test_absent_run_names_those_that_are_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dem"]) == 2
    assert "demo" in capsys.readouterr().err
    (runs / "half").mkdir()
    assert main(["show", "half"]) == 2
    assert "has not finished" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_damaged_run_says_which_file(runs: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "demo" / "run.json").write_text(content)
    assert main(["show", "demo"]) == 2
    complaint = capsys.readouterr().err
    assert "run.json" in complaint
    assert "run the recipe again" in complaint
