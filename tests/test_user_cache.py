"""Small facts in one file of the user's."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spokeshave.errors import InvalidArgument
from spokeshave.user_cache import FactCache, cache_folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    return tmp_path


def test_the_folder_is_the_users_unless_another_is_named(monkeypatch, folder):
    assert cache_folder() == folder
    monkeypatch.setenv("SPOKESHAVE_CACHE", "~/there")
    assert cache_folder() == Path.home() / "there"
    monkeypatch.delenv("SPOKESHAVE_CACHE")
    assert cache_folder().is_absolute() and cache_folder().name == "spokeshave"


def test_facts_last_and_add_up():
    FactCache("facts").keep({"a": 1.5, "b": [1, "x"]})
    FactCache("facts").keep({"c": None, "a": 2.5})
    again = FactCache("facts")
    assert again.get("a") == 2.5 and again.get("b") == [1, "x"] and again.get("d") is None
    assert FactCache("others").get("a") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1, "facts": {"a": 1}, "digest": "0"}', b"\xff\xfe"]
)
def test_a_damaged_file_counts_as_none_and_is_replaced(folder, content):
    (folder / "facts.json").write_bytes(content)
    assert FactCache("facts").get("a") is None
    FactCache("facts").keep({"a": 3})
    assert FactCache("facts").get("a") == 3


def test_a_number_changed_by_hand_is_not_believed(folder):
    FactCache("facts").keep({"a": 1})
    content = json.loads((folder / "facts.json").read_text())
    content["facts"]["a"] = 2
    (folder / "facts.json").write_text(json.dumps(content))
    assert FactCache("facts").get("a") is None


def test_a_folder_that_cannot_be_written_gives_one_warning_and_keeps_the_facts_for_this_process(folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(folder / "file"))
    facts = FactCache("facts")
    with pytest.warns(UserWarning, match="file cannot be written: .* file.*measures this machine again") as warned:
        facts.keep({"a": 1})
        facts.keep({"b": 2})
        FactCache("others").keep({"c": 3})
    assert len(warned) == 1 and (facts.get("a"), facts.get("b")) == (1, 2)


def test_facts_of_one_folder_do_not_reach_another(folder, monkeypatch):
    facts = FactCache("facts")
    facts.keep({"a": 1})
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(folder / "other"))
    facts.keep({"b": 2})
    assert facts.get("a") is None and FactCache("facts").get("b") == 2


def test_the_home_folder_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("SPOKESHAVE_CACHE", "~nobody_of_this_name/cache")
    with pytest.raises(InvalidArgument, match="SPOKESHAVE_CACHE=~nobody"):
        cache_folder()


def test_threads_lose_nothing():
    facts = FactCache("facts")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: facts.keep({str(number): number}), range(20)))
    assert all(FactCache("facts").get(str(number)) == number for number in range(20))
