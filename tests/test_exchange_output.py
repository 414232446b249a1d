"""What a comparison at equal budget leaves: its numbers by hand, the printed table, the ledger's row."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from exchange_cases import history, made_up
from small_road import few_digits
from spokeshave import exchange_output
from spokeshave.equal_budget import Pair, Trained
from spokeshave.evaluation import Evaluation
from spokeshave.exchange_output import mean_zero_codes, print_exchange, write_exchange, write_exchange_ledger
from spokeshave.report.exchange_record import ExchangeRecord


def trained(accuracy: float, codes: dict[str, float] | None = None) -> Trained:
    score = Evaluation(accuracy, 0.1, 100)
    return Trained(nn.Linear(2, 2), history(10, accuracy, codes), Evaluation(accuracy - 0.01, 0.1, 50), score)


def test_the_record_holds_what_the_pairs_gave(tmp_path: Path) -> None:
    pairs = [Pair(seed, trained(0.9), trained(0.88, {"w": 0.6 + 0.1 * seed})) for seed in (0, 1)]
    record = write_exchange(
        pairs, few_digits(), tmp_path / "run", recipe="terngrad", row="demo", title="t", config={"a": 1},
        float_bytes=800, sent_bytes=50,
    )  # fmt: skip
    assert record.errors == pytest.approx([0.12, 0.12]) and record.float_errors == pytest.approx([0.1, 0.1])
    assert record.validation_errors == pytest.approx([0.13, 0.13])
    assert record.zero_codes == pytest.approx({"w": 0.65})
    assert record.wall_s == 120 and record.seeds == [0, 1] and record.factor == 16
    assert ExchangeRecord.load(tmp_path / "run" / "run.json") == record
    assert (tmp_path / "run" / "report.html").stat().st_size > 5000


def test_means_are_over_rows_that_noted_codes() -> None:
    rows = [{"epoch": 1}, {"exchange": {}}, {"exchange": {"zero_codes": {"a": 0.2}}}]
    assert mean_zero_codes([rows, [{"exchange": {"zero_codes": {"a": 0.4, "b": 1.0}}}]]) == pytest.approx(
        {"a": 0.3, "b": 1.0}
    )
    assert mean_zero_codes([[{"epoch": 1}]]) == {}


def test_the_table_shows_both_errors_the_gap_and_the_published_one(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    print_exchange(made_up(), tmp_path, console)
    shown = console.export_text()
    for words in ("1.10 ± 0.10 %", "1.30 ± 0.10 %", "+0.20 ± 0.10 points", "0.80 %", "0.78 %", "16.1", "ip1.weight"):
        assert words in shown
    print_exchange(made_up(paper=None, zero_codes={}), tmp_path, console)
    assert "published" not in console.export_text()


def test_the_ledgers_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}

    def keep(recipe, row, config, numbers, **others):
        written.update(numbers, recipe=recipe, row=row, seeds=others["seeds"])
        return tmp_path / "row.json"

    monkeypatch.setattr(exchange_output, "write_row", keep)
    write_exchange_ledger(made_up(), tmp_path)
    assert (written["recipe"], written["row"], written["seeds"]) == ("terngrad", "lenet-2", [0, 1, 2])
    assert written["gap_points"] == pytest.approx(0.2) and written["gap_points_spread"] == pytest.approx(0.1)
    assert written["error"] == pytest.approx(0.013) and written["published"]["gap"] == -0.02
    assert written["validation_accuracy_by_step"]["float"][-1] == [300, pytest.approx(0.99 - 0.1 / 3)]
    assert json.loads(json.dumps(written))
