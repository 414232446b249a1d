"""The record of arms: it reads back, its numbers by hand, damaged ones are refused."""

import json
from dataclasses import replace

import pytest

from arms_cases import DIRECT, FLOAT, TUNED, made_up
from spokeshave.errors import DataError
from spokeshave.report.arms_record import KIND, ArmsRecord, number_words, spread
from spokeshave.report.exchange_record import read_kind


def test_it_reads_back(tmp_path):
    record = made_up()
    path = record.save(tmp_path / "run")
    assert ArmsRecord.load(path) == record and read_kind(path) == KIND


def test_a_record_from_before_there_were_tables_and_galleries_reads_back(tmp_path):
    record = made_up(tables=[], galleries=[], charts=[])
    path = record.save(tmp_path)
    content = json.loads(path.read_text())
    for name in ("tables", "galleries"):
        del content[name]
    path.write_text(json.dumps(content))
    assert ArmsRecord.load(path) == record


def test_numbers_by_hand():
    record = made_up()
    assert record.reference is FLOAT and record.main is TUNED
    assert TUNED.gaps(FLOAT) == pytest.approx([0.002, 0.003, 0.001]) and TUNED.error == pytest.approx(0.013)
    assert DIRECT.number("zero_share") == pytest.approx(0.4) and FLOAT.number("zero_share") is None
    assert record.published(TUNED, "gap") == 0.19 and record.published(TUNED, "accuracy") is None
    assert made_up(paper=None).published(TUNED, "gap") is None
    assert spread([1.0, 3.0]) == pytest.approx(2**0.5) and spread([1.0]) is None


def test_numbers_as_words():
    assert number_words("rank", 12.0) == "12" and number_words("layer", "conv1") == "conv1"
    assert number_words("area", 4321.98) == "4,322.0" and number_words("g", None) == "-"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": None}, r"missing fields \['arms'\]"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"kind": "other"}, "record of kind arms"),
        ({"headline": "nobody"}, "no arm is called 'nobody'"),
        ({"arms": []}, "at least one"),
        ({"arms": [{"name": "a"}]}, "arms or charts"),
        ({"charts": [{"title": "t"}]}, "arms or charts"),
        ({"seeds": [0, 1]}, "one error in 0..1"),
        ({"quantities": 3}, "quantities: got int"),
        ({"tables": [{"title": "t"}]}, "tables"),
        ({"galleries": [{"title": "t"}]}, "galleries"),
        ({"galleries": 3}, "galleries: got int"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    path = made_up().save(tmp_path)
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(DataError, match=words):
        ArmsRecord.load(path)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        (replace(TUNED, errors=[1.2, 1.4, 1.3]), "tuned: errors: .*not percent"),
        (replace(TUNED, validation_errors=[0.1]), "tuned: validation_errors"),
        (replace(TUNED, numbers=[{}]), "tuned: numbers"),
    ],
)
def test_a_damaged_arm_is_named(tmp_path, arm, words):
    path = made_up(arms=[FLOAT, arm]).save(tmp_path)
    with pytest.raises(DataError, match=words):
        ArmsRecord.load(path)
