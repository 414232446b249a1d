"""The restricted reader: all ways NumPy pickles a batch are read, and nothing that a pickle asks for is run."""

import io
import os
import pickle
import pickletools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spokeshave.data.cifar_pickle import read_pickle
from spokeshave.errors import DataError

DATA = np.random.default_rng(3).integers(0, 256, (4, 3072), dtype=np.uint8)


class Calls:
    """Pickles as a call of any function: the way a malicious pickle is made."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def python2_batch() -> bytes:
    """The opcodes that Python 2 wrote the official batches with: str as SHORT_BINSTRING, the array as BINSTRING."""
    out = io.BytesIO()

    def string(text: bytes) -> None:
        out.write(b"T" + len(text).to_bytes(4, "little") + text)

    out.write(b"\x80\x02}(")
    string(b"data")
    out.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t")
    string(b"b")
    out.write(b"tR(K\x01(K\x04M\x00\x0ctcnumpy\ndtype\n(")
    string(b"u1")
    out.write(b"K\x00K\x01tR(K\x03")
    string(b"|")
    out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
    string(DATA.tobytes())
    out.write(b"tb")
    string(b"labels")
    out.write(b"](K\x01K\x02K\x03K\x04eu.")
    return out.getvalue()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("keys", [str, str.encode])
def test_python_3_batches_of_any_protocol_are_read(tmp_path: Path, protocol: int, keys: Any) -> None:
    batch = {keys("data"): DATA, keys("labels"): [1, 2, 3, 4], keys("note"): b"\xff\x00"}
    got = read_pickle(write(tmp_path / "batch", pickle.dumps(batch, protocol=protocol)))
    assert np.array_equal(got["data"], DATA)
    assert got["labels"] == [1, 2, 3, 4]
    assert got["note"] == b"\xff\x00"


def test_python_2_batches_are_read(tmp_path: Path) -> None:
    content = python2_batch()
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], DATA)  # the hand-made file is a real one
    got = read_pickle(write(tmp_path / "batch", content))
    assert np.array_equal(got["data"], DATA)
    assert got["labels"] == [1, 2, 3, 4]


def test_column_major_arrays_keep_their_values(tmp_path: Path) -> None:
    content = pickle.dumps({"data": np.asfortranarray(DATA)}, protocol=2)
    assert np.array_equal(read_pickle(write(tmp_path / "batch", content))["data"], DATA)


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {canary}",), r"(posix|nt)\.system"),
        (eval, ("open({canary!r}, 'w')",), r"(builtins|__builtin__)\.eval"),
        (exec, ("open({canary!r}, 'w')",), r"(builtins|__builtin__)\.exec"),
        (getattr, ("", "__class__"), r"\w+\.getattr"),
        (subprocess.call, (["touch", "{canary}"],), r"(subprocess|commands)\.call"),  # the name of Python 2
        (np.load, ("{canary}",), r"numpy.*load"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, function: Any, arguments: tuple[Any, ...], named: str, protocol: int
) -> None:
    canary = tmp_path / "ran"
    filled = [a.format(canary=str(canary)) if isinstance(a, str) else a for a in arguments]
    content = pickle.dumps({"data": Calls(function, *filled)}, protocol=protocol)
    with pytest.raises(DataError, match=rf"batch: the pickle asks for {named}.*refused"):
        read_pickle(write(tmp_path / "batch", content))
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The same file read by pickle itself does run the command: the test above can fail."""
    content = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'ran'}"))
    pickle.loads(content)
    assert (tmp_path / "ran").exists()


def test_a_dotted_name_reaches_nothing(tmp_path: Path) -> None:
    content = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."
    assert any(op.name == "STACK_GLOBAL" for op, _, _ in pickletools.genops(content))
    with pytest.raises(DataError, match=r"numpy\.ndarray\.__init__"):
        read_pickle(write(tmp_path / "batch", content))


def test_decoding_by_another_codec_is_refused(tmp_path: Path) -> None:
    content = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00ax\x03\x00\x00\x00"  # cut short on purpose
    with pytest.raises(DataError, match="not a whole pickle"):
        read_pickle(write(tmp_path / "cut", content))
    whole = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."
    with pytest.raises(DataError, match="latin1 only, got 'rot13'"):
        read_pickle(write(tmp_path / "whole", whole))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([[1, 2]], dtype=object), "not a whole pickle|uint8"),
        (np.zeros((2, 2), np.float32), "uint8, got dtype 'f4'"),
        (np.zeros((2, 2), np.int64), "uint8, got dtype 'i8'"),
    ],
)
def test_arrays_of_other_types_are_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_pickle(write(tmp_path / "batch", pickle.dumps({"data": array}, protocol=2)))


def test_a_shape_that_the_bytes_do_not_fill_is_refused(tmp_path: Path) -> None:
    content = python2_batch().replace(b"(K\x04M\x00\x0ct", b"(K\x05M\x00\x0ct")
    with pytest.raises(DataError, match=r"\(5, 3072\) needs 15360 bytes, the file holds 12288"):
        read_pickle(write(tmp_path / "batch", content))


@pytest.mark.parametrize("keep", [0, 1, 20, 1000, -1])
def test_a_truncated_batch_is_refused_by_name_and_size(tmp_path: Path, keep: int) -> None:
    content = python2_batch()[:keep]
    with pytest.raises(DataError, match=rf"data_batch_1 \({len(content)} bytes\) is not a whole pickle"):
        read_pickle(write(tmp_path / "data_batch_1", content))


def test_random_damage_gives_a_data_error_or_another_batch_never_another_exception(tmp_path: Path) -> None:
    rng, content = np.random.default_rng(5), python2_batch()
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(0, 200)] = rng.integers(0, 256)
        try:
            read_pickle(write(tmp_path / "batch", bytes(damaged)))
        except DataError:
            refused += 1
    assert refused > 100


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a pickled dict, got list"):
        read_pickle(write(tmp_path / "batch", pickle.dumps([1, 2])))
