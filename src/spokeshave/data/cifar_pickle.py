"""Reads a CIFAR batch, which is a Python pickle, without letting the pickle run anything.

A pickle can name any function of any module and call it. This reader knows five names, those that a NumPy array of
uint8 and a byte string need, and answers each with a small stand-in of its own, so that not even NumPy's code runs on
what the file says; every other name is refused with an error.
"""

import pickle
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spokeshave.errors import DataError


class _PickledDtype:
    """Stands for numpy.dtype; remembers the code only."""

    __slots__ = ("code",)

    def __init__(self, code: Any, *flags: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment say nothing about single bytes."""


class _PickledArray:
    """Stands for numpy.ndarray; remembers shape, dtype, order and bytes."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self, *arguments: Any) -> None:
        self.shape, self.dtype, self.fortran, self.content = (), None, False, b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def array(self, path: Path) -> UInt8[np.ndarray, "..."]:
        """Build the real array, or say why the file's description of it cannot be right."""
        code = getattr(self.dtype, "code", None)
        if code not in ("u1", "|u1", "uint8", "B"):
            raise DataError(f"{path}: expected an array of uint8, got dtype {code!r}")
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        shape = self.shape
        if not isinstance(content, bytes | bytearray):
            raise DataError(f"{path}: expected the array's content as bytes, got {type(content).__name__}")
        if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise DataError(f"{path}: expected an array shape of non-negative integers, got {shape!r}")
        if prod(shape) != len(content):
            raise DataError(f"{path}: shape {shape} needs {prod(shape)} bytes, the file holds {len(content)}")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if self.fortran else "C")


def _reconstruct(*arguments: Any) -> _PickledArray:
    return _PickledArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _PickledArray:
    array = _PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"_codecs.encode is allowed for text to latin1 only, got {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows the names of `_ALLOWED` and nothing else."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Answer a name with its stand-in."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"{self.path}: the pickle asks for {module}.{name}, which no CIFAR batch needs, so it was refused and "
                "nothing was run; the file is not a genuine CIFAR batch: remove it and get it from a source you trust"
            ) from None


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dict of arrays, lists, numbers and strings.

    Args:
        path: a file written by Python 2 or 3, any pickle protocol.

    Returns:
        The dict; keys are str, byte strings stay bytes, arrays are numpy arrays of uint8.

    Raises:
        DataError: where the file cannot be read, is damaged, or asks for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        loaded = _RestrictedUnpickler(content, path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way; all of them mean the same to the user
        raise DataError(
            f"{path} ({len(content)} bytes) is not a whole pickle: {type(error).__name__}: {error}; "
            "remove the file and copy or download it again"
        ) from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path}: expected a pickled dict, got {type(loaded).__name__}")
    named = ((key.decode("latin1") if isinstance(key, bytes) else str(key), value) for key, value in loaded.items())
    return {key: value.array(path) if isinstance(value, _PickledArray) else value for key, value in named}
