"""Operations that functions write: made once, kept on disk, translated beside what goes on."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spokeshave.errors import JitRefused
from spokeshave.jit import generated_operation
from spokeshave.jit.generated_operation import Operation, generated
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.native_loops import I64, Loops, object_file
from spokeshave.jit.operation_loops import OperationLoops


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    return tmp_path


def widest() -> VectorSet:
    vectors = host_cpu().widest()
    assert vectors is not None
    return vectors


WRITTEN: list[int] = []


def write_number(number: int, times: int = 1) -> Loops:
    WRITTEN.append(number)
    loops = OperationLoops("number", widest(), ["target_at", "unused"])
    with loops.items() as item:
        loops.store(I64(number * times), loops.at(loops.arguments["target_at"], loops.times(item, 8)), 8)
    return loops


def stored(operation: Operation) -> int:
    place = np.zeros(1, np.int64)
    table = operation.layout.table(1, target_at=place.ctypes.data, unused=0)
    operation.function(table.ctypes.data, 0, 1)
    return int(place[0])


def test_it_is_written_once_and_found_on_disk_by_its_arguments(monkeypatch):
    WRITTEN.clear()
    make = generated(write_number)
    assert make(7) is make(7) and stored(make(7)) == 7 and stored(make(7, times=3)) == 21
    assert WRITTEN == [7, 7]
    monkeypatch.setattr(generated_operation, "object_file", lambda *_: pytest.fail("translated again"))
    again = generated(write_number)  # as in another process
    assert stored(again(7)) == 7 and stored(again(7, times=3)) == 21 and WRITTEN == [7, 7]
    assert again(7).layout == make(7).layout and again(7).layout.fields == ("target_at", "unused")


def test_a_damaged_entry_is_made_again(empty_cache):
    assert stored(generated(write_number)(5)) == 5
    for file in (empty_cache / "code").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    WRITTEN.clear()
    assert stored(generated(write_number)(5)) == 5 and WRITTEN == [5]


@pytest.mark.parametrize("processors", [1, 2])
def test_what_llvm_refuses_is_said_to_whoever_wants_the_code(monkeypatch, processors):
    def refuse(name: str, *_: object) -> np.ndarray:
        raise JitRefused(f"{name}: no")

    monkeypatch.setattr(generated_operation, "object_file", refuse)
    monkeypatch.setattr(generated_operation, "CPUS", processors)
    operation = generated(write_number)(11)
    for _ in range(2):
        with pytest.raises(JitRefused, match="number: no"):
            _ = operation.address
    monkeypatch.setattr(generated_operation, "object_file", object_file)
    assert stored(operation) == 11  # whoever asks again may have more luck


def test_threads_that_ask_at_the_same_time_get_the_same_code():
    operation = generated(write_number)(13)
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: operation.address, range(8)))) == 1
    assert stored(operation) == 13


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_translates_too():
    """Its parent's thread is not there any more."""
    script = """
import os, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from test_generated_operation import stored, write_number
from spokeshave.jit.generated_operation import generated
assert stored(generated(write_number)(3)) == 3
pending = generated(write_number)(5)
child = os.fork()
if child == 0:
    os._exit(0 if stored(generated(write_number)(4)) == 4 and stored(pending) == 5 else 1)
assert stored(generated(write_number)(6)) == 6
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    folder = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", script, str(folder)], timeout=120, check=False)
    assert run.returncode == 0


def test_a_process_that_ends_still_translates():
    script = """
import atexit, sys
sys.path[:0] = sys.argv[1:]
from test_generated_operation import stored, write_number
from spokeshave.jit.generated_operation import generated
assert stored(generated(write_number)(3)) == 3
atexit.register(lambda: print(stored(generated(write_number)(4))))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, timeout=120, check=False
    )
    assert run.stdout.split() == [b"4"]
