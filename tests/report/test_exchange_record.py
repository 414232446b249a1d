"""The record of an exchange: it reads back, its numbers by hand, damaged ones are refused."""

import json
from dataclasses import asdict

import pytest

from exchange_cases import made_up
from spokeshave.errors import DataError
from spokeshave.report.exchange_record import KIND, ExchangeRecord, read_kind, with_spread


def test_it_reads_back(tmp_path):
    record = made_up()
    path = record.save(tmp_path / "run")
    assert ExchangeRecord.load(path) == record
    assert read_kind(path) == KIND


def test_gaps_and_factor_by_hand():
    record = made_up()
    assert record.gaps == pytest.approx([0.002, 0.003, 0.001])
    assert record.factor == pytest.approx(1_724_320 / 107_000)
    assert made_up(sent_bytes=0).factor == 1.0  # one worker sends nothing
    assert with_spread(record.gaps, points=True) == "+0.20 ± 0.10 points"
    assert with_spread([-0.001], points=True) == "\N{MINUS SIGN}0.10 points"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"errors": None}, r"missing fields \['errors'\]"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"kind": "other"}, "record of kind exchange"),
        ({"schema": 9}, "schema 1"),
        ({"errors": [0.1, 0.2, 3.0]}, "not percent"),
        ({"errors": [0.1, 0.2]}, "one error"),
        ({"errors": "0.1"}, "errors: got str"),
        ({"errors": [0.1, 0.2, "0.3"]}, "errors: expected one error"),
        ({"zero_codes": {"w": 7}}, "zero_codes: expected shares"),
        ({"sent_bytes": "many"}, "sent_bytes: got str"),
        ({"history": {"float": [3]}}, "history of stage 'float'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    path = made_up().save(tmp_path)
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(DataError, match=words):
        ExchangeRecord.load(path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_what_is_no_record_is_refused(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"run\.json: expected"):
        ExchangeRecord.load(path)
    assert read_kind(path) is None and read_kind(tmp_path / "none") is None


def test_all_of_it_is_json():
    assert json.loads(json.dumps(asdict(made_up())))["paper"]["gap"] == -0.02
