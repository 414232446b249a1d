"""Run records survive their files, and damaged ones are refused by name."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from spokeshave.errors import DataError
from spokeshave.report.run_record import RunRecord


def test_save_and_load_give_the_same_record(record: RunRecord, tmp_path: Path) -> None:
    path = record.save(tmp_path / "run")
    for given in (path, path.parent):
        loaded = RunRecord.load(given)
        assert json.loads(json.dumps(loaded.to_dict())) == json.loads(json.dumps(record.to_dict()))
        assert loaded.baseline == record.baseline
        assert loaded.comparison == record.comparison
        assert set(loaded.weights) == set(record.weights)
        assert all(torch.equal(loaded.weights[name], matrix) for name, matrix in record.weights.items())


def test_numbers_that_json_lacks_become_null(record: RunRecord, tmp_path: Path) -> None:
    row = {"epoch": 0, "train_loss": float("nan"), "validation_loss": float("inf")}
    dataclasses.replace(record, history={"a": [row]}).save(tmp_path)
    loaded = RunRecord.load(tmp_path)
    assert loaded.history == {"a": [{"epoch": 0, "train_loss": None, "validation_loss": None}]}


def test_optional_parts_may_be_absent(record: RunRecord) -> None:
    content = record.to_dict()
    for name in ("comparison", "shrink", "history", "points", "paper", "command", "data", "weights", "commit"):
        del content[name]
    bare = RunRecord.from_dict(content)
    assert bare.comparison is None and bare.history == {} and bare.weights == {} and bare.commit is None


def test_missing_and_truncated_files(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no file; run the recipe"):
        RunRecord.load(tmp_path)
    path = record.save(tmp_path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"run\.json: expected JSON"):
        RunRecord.load(tmp_path)
    path.write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object, got list"):
        RunRecord.load(tmp_path)


def test_damaged_weights(record: RunRecord, tmp_path: Path) -> None:
    record.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(DataError, match=r"weights\.safetensors: expected the run's weight matrices"):
        RunRecord.load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        RunRecord.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "expected schema 1, got 99"),
        ({"schema": None}, "expected schema 1"),
        ({"colour": 1}, r"unknown fields \['colour'\]"),
        ({"baseline": {"accuracy": 99.1, "error": 0.9, "measurement": {}}}, "accuracy: expected a share"),
        ({"final": 3}, "final: expected accuracy"),
        ({"final": {"accuracy": 0.9, "error": 0.1, "measurement": {}}}, "Measurement"),
        ({"comparison": {"rows": 3}}, "Comparison"),
        ({"seeds": 3}, "seeds: got int"),
        ({"history": {"a": 1}}, "history of stage 'a'"),
        ({"points": [1]}, "points"),
    ],
)
def test_fields_out_of_their_range(record: RunRecord, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=rf"run\.json.*{message}"):
        RunRecord.from_dict(record.to_dict() | change, source="run.json")


def test_a_missing_field_is_named(record: RunRecord) -> None:
    content = record.to_dict()
    del content["seeds"]
    with pytest.raises(DataError, match=r"missing fields \['seeds'\]"):
        RunRecord.from_dict(content)
