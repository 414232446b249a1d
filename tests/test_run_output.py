"""What a run writes and prints: reads back, shows its neighbours, refuses what it must."""

import json

import pytest
import torch
from rich.console import Console

from small_road import record_of
from spokeshave.errors import CheckpointError, LedgerError
from spokeshave.export import load_safetensors
from spokeshave.report.run_record import RunRecord
from spokeshave.run_output import print_run, refuse_finished, sibling_points, write_ledger


def test_what_is_written_reads_back(shaped, splits, capsys):
    result, run_dir = shaped
    record = record_of(shaped, splits)
    assert RunRecord.load(run_dir).final.error == pytest.approx(1 - result.small_test.accuracy)
    assert record.wall_s >= sum(rows[-1]["wall_s"] for rows in result.history.values())
    program = torch.export.load(run_dir / "small.pt2").module()
    image = torch.randn(3, 1, 28, 28)
    assert torch.allclose(program(image), result.small(image), atol=1e-5)
    load_safetensors(result.small, run_dir / "small.safetensors")
    assert "<html" in (run_dir / "report.html").read_text()
    print_run(record, run_dir, Console(width=200))
    printed = capsys.readouterr().out
    assert f"{record.final.measurement.flops:,}" in printed and "report.html" in printed
    with pytest.raises(CheckpointError, match="finished run"):
        refuse_finished(run_dir, resume=False)
    refuse_finished(run_dir, resume=True)


def test_runs_of_the_same_network_beside_each_other_show_as_points(shaped, splits):
    _, run_dir = shaped
    for row in ("tiny-1", "tiny-2", "other-1"):
        record_of(shaped, splits, row)
    (run_dir.parent / "damaged").mkdir(exist_ok=True)
    (run_dir.parent / "damaged" / "run.json").write_text("{")
    assert [point["label"] for point in sibling_points(run_dir, "r", "tiny")] == ["tiny-2"]


def test_the_ledger_takes_a_clean_tree_only(shaped, splits, tmp_path, monkeypatch):
    record = record_of(shaped, splits)
    monkeypatch.setattr("spokeshave.ledger.find_commit", lambda directory: ("0" * 40, True))
    with pytest.raises(LedgerError):
        write_ledger(record, [shaped[0]], tmp_path)
    monkeypatch.setattr("spokeshave.ledger.find_commit", lambda directory: ("0" * 40, False))
    row = json.loads(write_ledger(record, [shaped[0]], tmp_path).read_text())
    assert row["numbers"]["errors"] == [1 - shaped[0].small_test.accuracy]
