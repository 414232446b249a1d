"""RANC JSON: takes what is expected out of a file's content, or says at which place in it something else is.

Of RANC (Mack et al., TCAD 2020), files are as its rapidjson reads them: UTF-8, integers only, no NaN.
Departs from RANC: of two members of one name rapidjson takes the first in silence; they are refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from spokeshave.errors import DataError
from spokeshave.files import file_error

LARGEST = 2**30
"""Of a number of a neuron."""


@dataclass(frozen=True)
class JsonFile:
    """Takes from a JSON file's content what is expected there, or raises `DataError` and says where something else is.

    Attributes:
        path: of the file.

    Example:
        >>> JsonFile(Path("input.json")).integer(1.5, "cores[3].neurons[17].leak")
        Traceback (most recent call last):
        spokeshave.errors.DataError: input.json: cores[3].neurons[17].leak: expected an integer, got 1.5
    """

    path: Path

    def wrong(self, where: str, expected: str, got: Any) -> DataError:
        """An error that names the file and the place in it."""
        return DataError(f"{self.path}: {where or 'the file'}: expected {expected}, got {got}")

    def parsed(self) -> dict[str, Any]:
        """The whole content."""
        raw = read_bytes(self.path)
        try:
            text = raw.decode()
            content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise DataError(
                f"{self.path} line {line}: expected UTF-8 text, got the byte {raw[error.start]:#x}"
            ) from error
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path} line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: not the JSON of RANC: {error}") from error
        if not isinstance(content, dict):
            raise self.wrong("", "an object", short(content))
        return content

    def member(self, content: Any, name: str, where: str) -> Any:
        """A member of an object."""
        if not isinstance(content, dict):
            raise self.wrong(where, "an object", short(content))
        if name not in content:
            raise DataError(f"{self.path}: {where + '.' if where else ''}{name} is missing")
        return content[name]

    def items(self, content: Any, where: str, most: int | None = None, because: str = "") -> list[Any]:
        """A list, of at most so many entries."""
        if not isinstance(content, list):
            raise self.wrong(where, "a list", short(content))
        if most is not None and len(content) > most:
            raise self.wrong(where, f"at most {most} entries ({because})", len(content))
        return content

    def integer(self, value: Any, where: str, low: int = -LARGEST, high: int = LARGEST) -> int:
        """An integer within bounds."""
        if type(value) is not int:
            raise self.wrong(where, "an integer", short(value))
        if not low <= value <= high:
            raise self.wrong(where, f"{low}..{high}", short(value))
        return value

    def pair(self, content: Any, name: str, where: str) -> tuple[int, int]:
        """A member that is a list of two integers."""
        values = self.items(self.member(content, name, where), f"{where}.{name}")
        if len(values) != 2:
            raise self.wrong(f"{where}.{name}", "two integers", short(values))
        x, y = (self.integer(value, f"{where}.{name}[{axis}]") for axis, value in enumerate(values))
        return x, y

    def place(self, content: Any, name: str, where: str, width: int, height: int) -> tuple[int, int]:
        """A member that is a place in a grid."""
        x, y = self.pair(content, name, where)
        if not (0 <= x < width and 0 <= y < height):
            raise self.wrong(f"{where}.{name}", f"a place in the grid of {width} x {height}", (x, y))
        return x, y

    def small(self, content: Any, where: str, most: int, below: int, because: str) -> np.ndarray:
        """Numbers from 0 up to `below`, which may be many."""
        values = self.items(content, where, most, "num_axons")
        if values and (set(map(type, values)) != {int} or min(values) < 0 or max(values) >= below):
            for place, value in enumerate(values):
                if self.integer(value, f"{where}[{place}]") not in range(below):
                    raise self.wrong(f"{where}[{place}]", f"0..{below - 1} ({because})", value)
        return np.array(values, np.uint8)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} comes twice in one object")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number there")


def read_bytes(path: Path) -> bytes:
    """The content of a file that was named by a user.

    Raises:
        DataError: it is missing.
        FileError: it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: name a file of RANC")
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(path, "reading", error) from error
