"""64-bit Arm on any machine: code is generated for it and runs in an emulator, on the memory of this process.

The emulator (Unicorn) sees the pages of this process at their own addresses, with their own permissions: code that
touches what this process may not touch fails. Arrays that the engine makes end where a forbidden page begins. LLVM's
assembler in llvmlite reads the host's instructions only, so that Keystone reads Arm's here.
"""

import ctypes
import mmap
import platform
import re
from collections.abc import Sequence
from functools import cache

import llvmlite.binding as llvm
import numpy as np
import pytest

from spokeshave.jit import (
    assembler,
    code_cache,
    generated_operation,
    host_cpu,
    llvm_target,
    native_loops,
    operation_sequence,
)
from spokeshave.jit.host_cpu import HostCpu
from spokeshave.targets.cpu_sparse import compiled_convolution, native_engine, nonzero_finder, tuning, work_loop

unicorn = pytest.importorskip("unicorn", reason="pip install 'spokeshave[dev]'")
keystone = pytest.importorskip("keystone", reason="pip install 'spokeshave[dev]'")
from unicorn import arm64_const as register  # noqa: E402 - after the check

CPU = HostCpu("cortex-a72", "aarch64-unknown-linux-gnu", frozenset({"neon", "fp-armv8"}))
KEPT = [*(f"X{n}" for n in range(19, 30)), *(f"D{n}" for n in range(8, 16)), "SP"]
"""Registers that belong to the caller."""
_STACK_BYTES = 1 << 16


def page_at(address: int) -> tuple[int, int, str] | None:
    """Begin, end and permissions of this process' memory around an address."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, permissions = line.split()[:2]
            begin, end = (int(number, 16) for number in place.split("-"))
            if begin <= address < end:
                return begin, end, permissions
    return None


def emulate(address: int, *arguments: int) -> None:
    """Call an AArch64 function of up to eight integers; refuse one that loses registers of its caller."""
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)

    def bring(machine, access, place, size, value, data) -> bool:
        found = page_at(place)
        if found is None or found[2][0] != "r":
            return False
        begin, end, permissions = found
        # A block that was brought may have grown since, or have become one with its neighbour.
        for first, last, _ in machine.mem_regions():
            if last < place:
                begin = max(begin, last + 1)
            else:
                end = min(end, first)
        rights = sum(1 << bit for bit, letter in enumerate("rwx") if letter in permissions)
        machine.mem_map_ptr(begin, end - begin, rights, begin)
        return True

    machine.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, bring)
    machine.reg_write(register.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # without this, vector instructions are refused
    for name in _LIBRARY:
        place = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        machine.hook_add(unicorn.UC_HOOK_CODE, _library_call, name, place, place)
    stack = guarded((_STACK_BYTES,), np.uint8)
    back = mmap.PAGESIZE  # where nothing of a process lies
    machine.mem_map(back, mmap.PAGESIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    machine.reg_write(register.UC_ARM64_REG_X30, back)
    for number, name in enumerate(KEPT):
        machine.reg_write(_register(name), 0x0123456789ABCDE0 + number)
    machine.reg_write(register.UC_ARM64_REG_SP, stack.ctypes.data + _STACK_BYTES)
    before = {name: machine.reg_read(_register(name)) for name in KEPT}
    for number, argument in enumerate(arguments):
        machine.reg_write(_register(f"X{number}"), argument)
    machine.emu_start(address, back)
    assert machine.reg_read(register.UC_ARM64_REG_PC) == back
    after = {name: machine.reg_read(_register(name)) for name in KEPT}
    assert after == before


_LIBRARY = {
    "memset": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)),
    "memcpy": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
    "powf": (ctypes.c_float, (ctypes.c_float, ctypes.c_float)),
}
"""Functions that LLVM calls of its own accord, with their types: the host's own do the work."""


def _library_call(machine, address, size, name) -> None:
    result, arguments = _LIBRARY[name]
    function = ctypes.CFUNCTYPE(result, *arguments)(address)
    if result is ctypes.c_float:
        given = np.array([machine.reg_read(_register(f"S{n}")) for n in range(2)], np.uint32).view(np.float32)
        machine.reg_write(_register("S0"), int(np.float32(function(*map(float, given))).view(np.uint32)))
    else:
        function(*(machine.reg_read(_register(f"X{n}")) for n in range(3)))
    machine.reg_write(_register("PC"), machine.reg_read(_register("X30")))


def _register(name: str) -> int:
    return getattr(register, f"UC_ARM64_REG_{name}")


_ALIVE: list[mmap.mmap] = []
"""Numpy does not know that a view ends with its pages."""


def guarded(shape: Sequence[int], dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Zeros that begin at a multiple of 16 bytes and end, but for what is missing to that, at a forbidden page."""
    bytes_ = int(np.prod(shape)) * np.dtype(dtype).itemsize
    size = -(-max(bytes_, 1) // 16) * 16
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    block = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for page in (start, start + mmap.PAGESIZE + pages):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    _ALIVE.append(block)
    first = mmap.PAGESIZE + pages - size
    return np.frombuffer(block, np.uint8)[first : first + bytes_].view(dtype).reshape(shape)


def assemble(text: str, labels: list[str]) -> tuple[bytes, dict[str, int]]:
    """As `spokeshave.jit.assembler.assemble`, for Arm."""
    table = "\n".join([".p2align 2", "label_table:", *(f".long {label}-label_table" for label in labels)])
    # Keystone never sets the base of plain numbers for Arm: whatever lies there may have 16 read as 22.
    text = re.sub(r"(?<=#)(-?)(\d+)\b", lambda number: f"{number[1]}{int(number[2]):#x}", text)
    reader = keystone.Ks(keystone.KS_ARCH_ARM64, keystone.KS_MODE_LITTLE_ENDIAN)
    code, _ = reader.asm(f"{text}\n{table}\n", as_bytes=True)
    table_at = len(code) - 4 * len(labels)
    distances = np.frombuffer(code[table_at:], np.int32)
    return code[:table_at], {name: table_at + int(far) for name, far in zip(labels, distances, strict=True)}


_MODULES = (
    assembler, code_cache, generated_operation, host_cpu, llvm_target, native_loops, operation_sequence, tuning,
    work_loop,
)  # fmt: skip
"""That ask for the CPU."""


@cache
def _arm_loop() -> generated_operation.Operation:
    return work_loop.work_loop.__wrapped__()


@cache
def _arm_runner() -> generated_operation.Operation:
    return operation_sequence._runner.__wrapped__()


def pretend_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generate code for Arm and run it in the emulator, through all of the engine, on one thread."""
    if platform.machine() in ("aarch64", "arm64"):
        pytest.skip("the other tests of the engine run on Arm itself here")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for module in _MODULES:
        monkeypatch.setattr(module, "host_cpu", lambda: CPU)
    monkeypatch.setattr(nonzero_finder, "_function", lambda: None)  # it is called here, not in the emulator
    monkeypatch.setattr(assembler, "assemble", assemble)
    monkeypatch.setattr(compiled_convolution, "aligned_zeros", guarded)
    monkeypatch.setattr(native_engine, "aligned_zeros", guarded)
    for module in (native_engine, compiled_convolution):
        monkeypatch.setattr(module, "work_loop", _arm_loop)
    monkeypatch.setattr(
        native_engine,
        "run_sequence_at",
        lambda steps, count, threads: emulate(_arm_runner().address, steps, count, min(threads, 1), 0, 0, 0, 0),
    )
