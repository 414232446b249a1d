"""Executable memory: machine code that Python made, mapped to be called; never writable and executable at once."""

import ctypes
import mmap
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spokeshave.errors import JitRefused

HUGE_PAGE = 2 << 20
"""Bytes of a huge page on x86-64 and most 64-bit Arm systems."""
_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
"""A process that was forked gets its own copy, and Linux gives such memory huge pages where it may give any."""


class ExecutableMemory:
    """A block of machine code that lives as long as this object.

    Args:
        code: position-independent instructions.

    Raises:
        JitRefused: the system does not let this process run code that it made.

    Example:
        >>> code = bytes.fromhex("b82a000000c3" if platform.machine() == "x86_64" else "40058052c0035fd6")
        >>> ExecutableMemory(code).function(0, ctypes.c_int)()  # "mov eax, 42; ret"
        42
    """

    def __init__(self, code: bytes) -> None:
        try:
            self._pages = mmap.mmap(-1, max(1, len(code)), _OWN, mmap.PROT_READ | mmap.PROT_WRITE)
            self._pages.write(code)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
            self._seal(len(code))
        except OSError as error:
            raise JitRefused(
                f"the system refuses generated code ({error.strerror or error}): allow executable memory for this "
                "process, or go on with the plain implementation, which is slower"
            ) from error
        self.size = len(code)

    def _seal(self, size: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        pages = -(-max(1, size) // mmap.PAGESIZE) * mmap.PAGESIZE
        protection = mmap.PROT_READ | mmap.PROT_EXEC
        if libc.mprotect(ctypes.c_void_p(self.address), ctypes.c_size_t(pages), protection) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        if platform.machine() in ("aarch64", "arm64"):  # x86 keeps its instruction cache coherent by itself
            if platform.system() == "Darwin":
                libc.sys_icache_invalidate(ctypes.c_void_p(self.address), ctypes.c_size_t(size))
            else:
                clear = ctypes.CDLL("libgcc_s.so.1").__clear_cache
                clear(ctypes.c_void_p(self.address), ctypes.c_void_p(self.address + size))

    def function(self, offset: int, result: Any, *arguments: Any) -> Callable[..., Any]:
        """Make the code at an offset callable; the call releases Python's lock.

        Args:
            offset: of the first instruction, in bytes.
            result: ctypes type, or None.
            arguments: their ctypes types.
        """
        if not 0 <= offset < self.size:
            raise IndexError(f"offset {offset} is outside the {self.size} bytes of code")
        function = ctypes.CFUNCTYPE(result, *arguments)(self.address + offset)
        function.memory = self  # type: ignore[attr-defined] # keeps the pages alive
        return function


def aligned_zeros(shape: Sequence[int], dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Zeros at the start of a page, on huge pages where the system has them and the array is large.

    Vector loads then never cross a cache line, and a large array needs few entries of the address translation cache.

    Args:
        shape: of the array.
        dtype: of its elements.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    boundary = HUGE_PAGE if size >= HUGE_PAGE else mmap.PAGESIZE
    pages = mmap.mmap(-1, max(size, 1) + (boundary if boundary > mmap.PAGESIZE else 0), _OWN)
    if boundary == HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(pages, np.uint8)
    start = -raw.ctypes.data % boundary
    return raw[start : start + size].view(dtype).reshape(shape)
