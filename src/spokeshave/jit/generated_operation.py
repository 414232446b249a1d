"""Generated operations: what a Python function writes as loops becomes machine code, once a process.

The code is kept on disk under the name of the function that writes it, its arguments and the sources of this package:
where it is known, nothing is written at all. Where it is not, LLVM translates it in a thread of its own, until somebody
asks for its address.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import numpy as np

from spokeshave.jit.code_cache import cached, code_key, found, generator
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.llvm_target import LLVM_LOCK
from spokeshave.jit.native_loops import Loops, load_function, native_address, object_file
from spokeshave.jit.operation_loops import TableLayout
from spokeshave.jit.side_by_side import CPUS


@dataclass(frozen=True)
class _Kept:
    """What is kept beside the code, to call it."""

    name: str
    signature: str
    fields: list[str]


class Operation:
    """A function that was generated.

    Args:
        kept: how it is called.
        translate: gives its object file.
        promise: of the same, where a thread is at it.
        vectors: set of instructions.

    Attributes:
        layout: of its tables; without fields where it takes none.
    """

    def __init__(
        self,
        kept: _Kept,
        translate: Callable[[], np.ndarray],
        promise: "Future[np.ndarray] | None",
        vectors: VectorSet,
    ) -> None:
        self.layout = TableLayout(tuple(kept.fields))
        self._kept, self._vectors = kept, vectors
        self._source: tuple[Callable[[], np.ndarray], Future[np.ndarray] | None] | None = translate, promise
        self._function: Callable[..., None] | None = None

    @property
    def function(self) -> Callable[..., None]:
        """To be called with Python integers; waits until it is translated.

        Raises:
            JitRefused: it cannot be translated or loaded on this machine.
        """
        source = self._source  # read once, and before the function: another thread may load it meanwhile
        if self._function is not None:
            return self._function
        assert source is not None
        translate, promise = source
        try:
            image = translate() if promise is None else promise.result()
        except BaseException:
            self._source = translate, None  # whoever asks again may have more luck
            raise
        with LLVM_LOCK:
            if self._function is None:
                self._function = load_function(self._kept.name, self._kept.signature, image, self._vectors)
                self._source = None
            return self._function

    @property
    def address(self) -> int:
        """Of the machine code."""
        return native_address(self.function)


def generated(write: Callable[..., Loops]) -> Callable[..., Operation]:
    """Make a function that writes loops give the operation instead, the same again for the same arguments.

    Args:
        write: its arguments have a `repr` that tells all about them, and everything that it writes depends on them, on
            this package's sources and on the CPU alone.
    """

    @wraps(write)
    def give(*arguments: Any, **named: Any) -> Operation:
        widest = host_cpu().widest()
        assert widest is not None
        vectors = next((one for one in (*arguments, *named.values()) if isinstance(one, VectorSet)), widest)
        key = code_key("operation", generator(vectors), write.__module__, write.__qualname__, arguments, named)
        known = found(key)
        if known is not None:
            return Operation(_Kept(**json.loads(known["kept"].tobytes())), lambda: known["object"], None, vectors)
        loops = write(*arguments, **named)
        kept, text = _Kept(loops.name, loops.signature, list(getattr(loops, "fields", ()))), loops.finished()
        said = np.frombuffer(json.dumps(vars(kept)).encode(), np.uint8)

        def translate() -> np.ndarray:
            make = lambda: {"object": object_file(kept.name, text, vectors), "kept": said}  # noqa: E731
            return cached(key, make)["object"]

        return Operation(kept, translate, _promised(translate), vectors)

    return cache(give)


def _promised(translate: Callable[[], np.ndarray]) -> "Future[np.ndarray] | None":
    if CPUS == 1:  # there a thread would disturb what is measured meanwhile
        return None
    try:
        return _translator().submit(translate)
    except RuntimeError:  # the process is ending, and starts no thread any more
        return None


@cache
def _translator() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "spokeshave-llvm")


def _before_fork() -> None:
    """A process that was forked has one thread: what another one had promised would never come."""
    if _translator.cache_info().currsize:
        _translator().shutdown()
        _translator.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
