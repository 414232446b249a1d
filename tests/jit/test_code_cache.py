"""Arrays on disk by key: whole, sound and one's own, or made again."""

import ctypes
import errno
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spokeshave.jit import code_cache, native_loops
from spokeshave.jit.code_cache import cached, code_key
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.native_loops import I64, Loops


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    return tmp_path / "code"


def make() -> code_cache.Arrays:
    return {"one": np.arange(5, dtype=np.float32), "none": np.zeros((0, 3), np.int64)}


def never() -> code_cache.Arrays:
    pytest.fail("made again")


def test_an_entry_is_made_once():
    for maker in (make, never):
        got = cached("key", maker)
        np.testing.assert_array_equal(got["one"], np.arange(5))
        assert got["none"].shape == (0, 3) and got["none"].dtype == np.int64


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_entry_is_made_again_and_replaced(folder, damage):
    cached("key", make)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    broken = {
        "truncate": whole[:-3],
        "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
        "empty": b"",
        "text": b"no code at all",
    }
    file.write_bytes(broken[damage])
    other = {"one": np.ones(2, np.float32)}
    np.testing.assert_array_equal(cached("key", lambda: other)["one"], other["one"])
    np.testing.assert_array_equal(cached("key", never)["one"], other["one"])


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64])
def test_arrays_begin_at_a_page_and_have_room_behind_them(kind):
    odd = np.arange(7).astype(kind)
    for maker in (lambda: {"odd": odd, "other": odd[:1]}, never):
        for array, wanted in zip(cached(str(kind), maker).values(), (odd, odd[:1]), strict=True):
            assert array.dtype == kind and array.ctypes.data % 4096 == 0
            np.testing.assert_array_equal(array, wanted)
            behind = (ctypes.c_uint8 * code_cache.ROOM).from_address(array.ctypes.data + array.nbytes)
            assert not any(behind)


def _with_header(header: object, data: bytes = bytes(64)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        (1 << 62).to_bytes(8, "little") + bytes(100),
        _with_header([]),
        _with_header({"one": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        *(
            _with_header({"__metadata__": {"sha256": ""}, "one": {"dtype": "F32", "shape": [4]} | facts})
            for facts in (
                {},
                {"data_offsets": [0, 12]},
                {"data_offsets": [56, 72]},
                {"data_offsets": [-16, 0]},
                {"data_offsets": [0, 16], "dtype": "F8_E4M3"},
                {"data_offsets": [0, 16], "shape": [-2, -2]},
                {"data_offsets": [0, 1 << 60], "shape": [1 << 58]},
                {"data_offsets": ["a", "b"]},
                {"data_offsets": 5},
                {"data_offsets": [0, 0], "shape": [0, 10**30]},
                {"data_offsets": [0, 0], "shape": [0, 10**19]},
            )
        ),
        b"\x00\x20\x00\x00\x00\x00\x00\x00" + b"[" * (1 << 13),
    ],
)
def test_a_header_that_says_what_cannot_be_is_made_again(folder, content):
    folder.mkdir()
    (folder / "key.safetensors").write_bytes(content)
    assert code_cache.found("key") is None
    np.testing.assert_array_equal(cached("key", make)["one"], np.arange(5))
    assert code_cache.found("key") is not None


def test_an_entry_under_the_name_of_another_is_made_again(folder):
    cached("key", make)
    (file,) = folder.iterdir()
    (folder / "other.safetensors").write_bytes(file.read_bytes())
    assert cached("other", lambda: {"one": np.ones(2, np.float32)})["one"].tolist() == [1, 1]


def test_keys_tell_arrays_apart():
    zeros = np.zeros(4, np.float32)
    keys = [zeros, zeros.astype(np.int32), zeros.reshape(2, 2), np.ones(4, np.float32), zeros[:3], "zeros", 0, ("a", 1)]
    assert len({code_key(part) for part in keys}) == len(keys)
    assert code_key(zeros[::2]) == code_key(zeros[:2])


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="the next run generates code") as warned:
        for key in "abc":
            assert set(cached(key, make)) == {"one", "none"}
    assert len(warned) == 1


def test_an_entry_of_a_cache_that_may_only_be_read_is_used(monkeypatch):
    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    cached("key", make)
    monkeypatch.setattr(os, "utime", refuse)
    assert set(cached("key", never)) == {"one", "none"}


def test_threads_that_make_the_same_entry_do_not_get_into_each_others_way(folder):
    content = {"one": np.arange(100_000)}
    with ThreadPoolExecutor(4) as pool:
        for key in map(str, range(30)):
            for got in pool.map(lambda _, key=key: cached(key, lambda: content), range(4)):
                np.testing.assert_array_equal(got["one"], content["one"])
    assert len(list(folder.iterdir())) == 30


def test_what_a_process_killed_while_writing_left_goes_with_an_entry_of_the_next(folder, monkeypatch):
    dead = subprocess.Popen(["true"])
    dead.wait()
    cached("key", make)
    (folder / f".of_another_key.safetensors.{dead.pid}-7.tmp").write_text("half")
    monkeypatch.setattr(code_cache, "_SINCE_TRIMMED", {})  # as in a new process
    cached("new", make)
    assert sorted(file.name for file in folder.iterdir()) == ["key.safetensors", "new.safetensors"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a system without user numbers")
def test_what_another_user_left_there_is_not_used(monkeypatch):
    cached("key", make)
    monkeypatch.setattr(os, "getuid", lambda: 1 << 30)
    assert set(cached("key", lambda: {"mine": np.ones(1)})) == {"mine"}


def test_the_folder_does_not_grow_without_end(folder, monkeypatch):
    for number in range(4):
        cached(str(number), make)
        os.utime(folder / f"{number}.safetensors", (number, number))
    size = (folder / "0.safetensors").stat().st_size
    monkeypatch.setattr(code_cache, "MOST_BYTES", 3 * size)
    cached("new", make)
    assert sorted(file.stem for file in folder.iterdir()) == ["2", "3", "new"]


def test_the_folder_is_not_looked_through_at_every_write(folder, monkeypatch):
    looks = []
    monkeypatch.setattr(code_cache, "_trim", looks.append)
    for number in range(5):
        cached(str(number), make)
    assert looks == [folder]
    monkeypatch.setattr(code_cache, "MOST_BYTES", 64 * sum(array.nbytes for array in make().values()))
    for number in range(5, 9):
        cached(str(number), make)
    assert len(looks) == 3  # one in two: a thirty-second part of what is allowed


def test_a_function_is_compiled_once(monkeypatch):
    vectors = host_cpu().widest()
    assert vectors is not None

    def compile_one() -> int:
        loops = Loops("store_seven", vectors, place=I64)
        loops.builder.store(I64(7), loops.builder.inttoptr(loops.arguments["place"], I64.as_pointer()))
        place = np.zeros(1, np.int64)
        loops.compile()(place.ctypes.data)
        return int(place[0])

    assert compile_one() == 7
    monkeypatch.setattr(native_loops, "object_file", lambda *_: pytest.fail("compiled again"))
    assert compile_one() == 7
