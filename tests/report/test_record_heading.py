"""What all records share: read from a folder or a file, fields of the wrong kind named, the code and machine told."""

import json

import pytest

from spokeshave.errors import DataError
from spokeshave.report.record_heading import check_kinds, code_and_machine, read_content


def test_a_folder_and_its_file_are_the_same(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "r"}))
    assert (
        read_content(tmp_path) == read_content(str(tmp_path / "run.json")) == (tmp_path / "run.json", {"recipe": "r"})
    )


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(
        DataError, match=r"run\.json: expected the record of a finished run, found no file; run the recipe"
    ):
        read_content(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": "0"}, "here: seeds: got str: '0'"),
        ({"wall_s": None}, "here: wall_s: got NoneType"),
        ({"history": {"baseline": [1]}}, "here: history of stage 'baseline': expected a list of rows"),
        ({"points": {}}, "here: points: got dict"),
    ],
)
def test_the_first_field_of_another_kind_is_named(values, words):
    check_kinds({"seeds": [0], "wall_s": 1, "history": {"baseline": [{}]}, "points": []}, "here", {"points": list})
    with pytest.raises(DataError, match=words):
        check_kinds(values, "here", {"points": list})


def test_code_and_machine_are_json_and_name_torch():
    found = code_and_machine()
    assert json.loads(json.dumps(found)) == found and "torch" in found["versions"] and found["machine"]
