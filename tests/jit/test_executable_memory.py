import ctypes
import mmap
import os
import platform

import numpy as np
import pytest

from spokeshave.errors import JitRefused
from spokeshave.jit import executable_memory
from spokeshave.jit.assembler import assemble
from spokeshave.jit.executable_memory import ExecutableMemory, aligned_zeros

ADD = "add:\nlea rax, [rdi + rsi]\nret" if platform.machine() == "x86_64" else "add:\nadd x0, x0, x1\nret"


def test_code_runs_with_its_arguments() -> None:
    code, places = assemble(ADD, ["add"])
    add = ExecutableMemory(code).function(places["add"], ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    assert add(40, 2) == 42  # the memory lives as long as the function


def test_code_is_not_writable() -> None:
    code, _ = assemble(ADD, ["add"])
    memory = ExecutableMemory(code)
    with open("/proc/self/maps") as maps:
        mine = next(
            line
            for line in maps
            if int(line.split("-")[0], 16) <= memory.address < int(line.split("-")[1].split()[0], 16)
        )
    assert mine.split()[1].startswith("r-x")


def test_a_place_outside_the_code_is_refused() -> None:
    code, _ = assemble(ADD, ["add"])
    with pytest.raises(IndexError):
        ExecutableMemory(code).function(len(code), None)


def test_a_system_that_forbids_generated_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None:
            self.mprotect = lambda *_: -1

    monkeypatch.setattr(executable_memory.ctypes, "CDLL", Refusing)
    monkeypatch.setattr(executable_memory.ctypes, "get_errno", lambda: 13)
    with pytest.raises(JitRefused, match="allow executable memory"):
        ExecutableMemory(b"\xc3")


@pytest.mark.parametrize("shape", [(3,), (5, 7), (1024, 1024)])
def test_zeros_begin_at_a_page(shape: tuple[int, ...]) -> None:
    array = aligned_zeros(shape)
    assert array.ctypes.data % mmap.PAGESIZE == 0
    assert array.shape == shape
    assert array.dtype == np.float32
    assert not array.any()


@pytest.mark.parametrize("shape", [(3,), (1 << 20,)])
def test_a_forked_process_has_its_own_copy(shape: tuple[int, ...]) -> None:
    array = aligned_zeros(shape)
    child = os.fork()
    if child == 0:
        array[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not array.any()
