"""Small data sets, written by hand in the formats of the real ones."""

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

WriteIdx = Callable[..., Path]


@pytest.fixture
def write_idx() -> WriteIdx:
    """Write an array as an idx file by the format's own definition: magic number, sizes, bytes."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", side) for side in array.shape)
        content = head + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def images() -> np.ndarray:
    """Twelve grey images of 4x5."""
    return np.random.default_rng(0).integers(0, 256, (12, 4, 5), dtype=np.uint8)


@pytest.fixture
def mnist_like(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray) -> Path:
    """A data folder with a small MNIST: 8 training and 4 test images, gzipped and plain files mixed."""
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte.gz", images[:8])
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(8))
    write_idx(raw / "t10k-images-idx3-ubyte", images[8:])
    write_idx(raw / "t10k-labels-idx1-ubyte.gz", np.array([9, 8, 0, 1]))
    return tmp_path


@pytest.fixture
def no_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide SPOKESHAVE_DATA and the user's cache, so that only what the test writes is found; gives the cache."""
    monkeypatch.delenv("SPOKESHAVE_DATA", raising=False)
    cache = tmp_path / "cache"
    monkeypatch.setattr("spokeshave.data.data_folders.cache_folder", lambda: cache)
    return cache


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Switch the shape checks of the tests off, to reach the checks that users get."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
