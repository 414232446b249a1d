"""What is not the JSON that RANC's parser takes is refused, with the place of it."""

from pathlib import Path

import pytest

from spokeshave.errors import DataError
from spokeshave.targets.truenorth.ranc_json import JsonFile


def parsed(folder: Path, content: bytes) -> dict:
    (folder / "input.json").write_bytes(content)
    return JsonFile(folder / "input.json").parsed()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{"a": 1,\n "b": }', "line 2, column 7: not JSON"),
        (b'{"a": [1, 2', "line 1, column 12: not JSON"),
        (b"[1]", r"the file: expected an object, got \[1\]"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' comes twice in one object"),
        (b'{"a": 1,\n"b": "\xe9"}', "line 2: expected UTF-8 text, got the byte 0xe9"),
        (b"[" * 100_000, "not the JSON of RANC"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not the JSON of RANC"),
        (b"\xef\xbb\xbf{}", "line 1, column 1: not JSON"),
    ],
)
def test_files_that_are_no_json_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"input\.json.*{words}"):
        parsed(tmp_path, content)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match=f"{path} is missing"):
            JsonFile(path).parsed()


def test_lists_of_small_numbers_are_checked_one_by_one(tmp_path: Path) -> None:
    file = JsonFile(tmp_path / "input.json")
    assert file.small([0, 1, 1], "bits", 3, 2, "on or off").tolist() == [0, 1, 1]
    assert file.small([], "bits", 3, 2, "on or off").tolist() == []
    for values, words in (
        ([0, 1, 2], r"bits\[2\]: expected 0\.\.1 \(on or off\), got 2"),
        ([0, -1], r"bits\[1\]: expected 0\.\.1"),
        ([0, True], r"bits\[1\]: expected an integer, got True"),
        ([1.0], r"bits\[0\]: expected an integer, got 1\.0"),
        (["1"], r"bits\[0\]: expected an integer"),
        ([0, 10**30], r"bits\[1\]: expected"),
        ([0] * 4, r"bits: expected at most 3 entries \(num_axons\), got 4"),
        ("001", "bits: expected a list, got '001'"),
    ):
        with pytest.raises(DataError, match=words):
            file.small(values, "bits", 3, 2, "on or off")
