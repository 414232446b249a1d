"""LIBSVM's sparse text files (Chang and Lin, ACM TIST 2011), and RS130 from them: secondary structure of proteins.

A line is `label index:value index:value ...`: indices rise from 1, and a feature that is left out is 0. RS130 (Rost and
Sander, JMB 1993) is the set that LIBSVM calls `protein` (Wang, master's thesis, NTU 2002), with a blank after many a
colon, as in `63: .50`. Wen et al., DAC 2016, take its 357 features for images of 19x19.
Departs from the paper: it does not say how 357 features fill 361 pixels; here row by row, and the last four are 0.
"""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

FEATURES = 357
SIDE_PIXELS = 19
CLASSES = ("0", "1", "2")
_AGAIN = "remove the file and copy or download it again"
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
}
"""End of a file's name -> what gives its text; the form that LIBSVM offers last."""

_LINE = re.compile(rb"[-+]?\d{1,18}(?:[ \t]++\d{1,18}+:[ \t]*+[-+.\deE]++)*")
"""The shape of a line: 18 digits stay within int64; possessive (`++`), so that what has another shape fails at once.

Not so the whole repetition: Python before 3.11.5 then takes half a pair for a match.
"""
_LABEL = re.compile(rb"[-+]?\d{1,18}(?!\S)")
_PAIR = re.compile(rb"[ \t]*(\d{1,18}):[ \t]*(\S+)")
_REMEMBERED = 1 << 16


class Numbers(dict[bytes, float]):
    """Numbers by their text: those of RS130 have two decimals, and looking one up takes a fifth of converting it."""

    def __missing__(self, text: bytes) -> float:
        number = float(text)
        if len(self) < _REMEMBERED:
            self[text] = number
        return number


def read_text(path: Path) -> bytes:
    """Read a file, decompressed where its name ends in .gz, .xz or .bz2.

    Raises:
        DataError: where it cannot be read, or the compressed stream is damaged or ends early.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _DECOMPRESS.get(path.suffix, bytes)(content)
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{path} ({len(content)} bytes) is not a whole {path.suffix} file: {error}; {_AGAIN}"
        ) from error


def read_libsvm(path: Path, features: int) -> tuple[Float64[np.ndarray, "n {features}"], Int64[np.ndarray, " n"]]:
    """Read a LIBSVM file.

    Args:
        path: the file, plain or compressed; sample i stands on line i + 1.
        features: how many there are, 1 or more.

    Returns:
        (values, 0 for what a line leaves out; the labels as they are written).

    Raises:
        DataError: where the file is damaged or empty, or a line is not of the format; the message has its number.
    """
    lines = read_text(path).rstrip().splitlines()
    if not lines:
        raise DataError(f"{path} is empty: expected lines of 'label index:value ...'; {_AGAIN}")
    values, labels, numbers = np.zeros((len(lines), features)), np.zeros(len(lines), np.int64), Numbers()
    for row, line in enumerate(lines):
        try:
            labels[row], indices, given = parse_line(line, features, numbers)
        except ValueError as error:
            raise DataError(f"{path}: line {row + 1}: {error}; {_AGAIN}") from error
        values[row, np.array(indices, np.intp) - 1] = given
    return values, labels


def parse_line(line: bytes, features: int, numbers: Numbers) -> tuple[int, list[int], Float64[np.ndarray, " k"]]:
    """Take one line of a LIBSVM file apart.

    Args:
        line: without its end.
        features: how many there are.
        numbers: those met before; filled.

    Returns:
        (label, indices from 1 on, their values).

    Raises:
        ValueError: says what is wrong with the line.

    Example:
        >>> label, indices, values = parse_line(b"2   21:1.00   63: .50", 100, Numbers())
        >>> label, indices, values.tolist()
        (2, [21, 63], [1.0, 0.5])
    """
    line = line.strip(b" \t")
    words = line.replace(b":", b" ").split() if _LINE.fullmatch(line) else []
    try:
        label, indices = int(words[0]), list(map(int, words[1::2]))
        values = np.array(list(map(numbers.__getitem__, words[2::2])), np.float64)
    except (IndexError, ValueError):  # no words, or some like 1.2.3
        raise ValueError(_fault(line)) from None
    if indices and not (indices[0] >= 1 and indices[-1] <= features and indices == sorted(set(indices))):
        before, index = next((a, b) for a, b in pairwise([0, *indices]) if not a < b <= features)
        where = f"after {before}" if before else "first"
        raise ValueError(f"indices must rise and be 1..{features}, got {index} {where}")
    if not np.isfinite(values).all():
        raise ValueError(_fault(line))
    return label, indices, values


def _fault(line: bytes) -> str:
    """Say what is wrong with a line, apart from the order of its indices."""
    label = _LABEL.match(line)
    if label is None:
        return f"expected an integer label, got {_first_word(line)}"
    end = label.end()
    while pair := _PAIR.match(line, end):
        try:
            finite = b"_" not in pair[2] and isfinite(float(pair[2]))
        except ValueError:
            finite = False
        if not finite:
            return f"value {int(pair[1])} must be a finite number, got {_first_word(pair[2])}"
        end = pair.end()
    return f"expected index:value, got {_first_word(line[end:])}"


def _first_word(text: bytes) -> str:
    """Quote what may be binary junk of any length."""
    return repr((text.split() or [text])[0][:30].decode("ascii", "backslashreplace"))


def read_rs130(folder: Path) -> Splits:
    """Read RS130, as images of 1x19x19 with the classes "0", "1" and "2".

    Where the training file stays within [0, 1], as LIBSVM's does, a value becomes the level round(255 value). Otherwise
    its least and its greatest value (0 among them, where features are left out) become 0 and 255. The test file is
    scaled as the training file is, and what is beyond is clipped. The three labels become 0, 1 and 2 in rising order.

    Args:
        folder: holds protein and protein.t, each plain, .gz, .xz or .bz2.

    Raises:
        DataError: where a file is missing or damaged, the training file has not three labels, or the test file has
            one that the training file lacks.
    """
    train_file, test_file = (_any_form(folder, name) for name in ("protein", "protein.t"))
    values, labels = read_libsvm(train_file, FEATURES)
    known, first = np.unique(labels, return_index=True)
    if len(known) != len(CLASSES):
        raise DataError(
            f"{train_file}: expected {len(CLASSES)} different labels, got {len(known)}: "
            f"{_listed(known)}, the last new one on line {first.max() + 1}; {_AGAIN}"
        )
    test_values, test_labels = read_libsvm(test_file, FEATURES)
    unknown = np.flatnonzero(~np.isin(test_labels, known))
    if len(unknown):
        raise DataError(
            f"{test_file}: line {unknown[0] + 1}: labels must be {_listed(known)} as in {train_file.name}, "
            f"got {test_labels[unknown[0]]}; copy or download both files again"
        )
    low, high = float(values.min()), float(values.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    train, test = (
        Split(torch.from_numpy(_images(part, low, high)), torch.from_numpy(np.searchsorted(known, written)))
        for part, written in ((values, labels), (test_values, test_labels))
    )
    return Splits(DatasetName.RS130.value, train, test, CLASSES)


def _listed(labels: Int64[np.ndarray, " k"]) -> str:
    return ", ".join(map(str, labels[:6])) + (", ..." if len(labels) > 6 else "")


def _images(values: Float64[np.ndarray, "n f"], low: float, high: float) -> UInt8[np.ndarray, "n 1 h w"]:
    half_range = high / 2 - low / 2  # halves, since the range of the largest doubles is none
    shares = (values.clip(low, high) / 2 - low / 2) / (half_range or 1.0)
    images = np.zeros((len(values), SIDE_PIXELS**2), np.uint8)
    images[:, : values.shape[1]] = np.rint(255 * shares)
    return images.reshape(-1, 1, SIDE_PIXELS, SIDE_PIXELS)


def _any_form(folder: Path, name: str) -> Path:
    """Give the first form of a file that is there, else the path of the one that LIBSVM offers."""
    forms = [folder / f"{name}{ending}" for ending in _DECOMPRESS]
    return next((form for form in forms if form.is_file()), forms[-1])


RS130 = Source(
    name=DatasetName.RS130,
    title="RS130 (LIBSVM's protein)",
    folders=("rs130", "protein"),
    files=tuple(tuple(f"{name}{ending}" for ending in _DECOMPRESS) for name in ("protein", "protein.t")),
    read=read_rs130,
    page="https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#protein",
)
