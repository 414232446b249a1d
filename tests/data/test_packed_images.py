"""Images packed into one array: decoded as their files are, and every way in which the arrays can disagree."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spokeshave.data.packed_images import read_arrays, read_packed
from spokeshave.errors import DataError


def packed(count: int, side: int = 8) -> dict[str, np.ndarray]:
    parts = []
    for number in range(count):
        buffer = BytesIO()
        Image.fromarray(np.full((side, side, 3), 40 * number, np.uint8)).save(buffer, "PNG")
        parts.append(np.frombuffer(buffer.getvalue(), np.uint8))
    return {"jpeg": np.concatenate(parts), "offsets": np.cumsum([0, *map(len, parts)])}


def test_chosen_images_come_in_their_order() -> None:
    images = read_packed(Path("some.npz"), np.array([False, True, False, True]), packed(4), 6)
    assert images.shape == (2, 3, 6, 6) and images[:, 0, 0, 0].tolist() == [40, 120]


def test_a_damaged_image_is_named_by_its_place() -> None:
    arrays = packed(3)
    arrays["jpeg"][arrays["offsets"][1] : arrays["offsets"][1] + 20] = 0
    with pytest.raises(DataError, match=r"some\.npz, image 1 \(\d+ bytes\) cannot be read"):
        read_packed(Path("some.npz"), np.ones(3, bool), arrays, 8)
    assert len(read_packed(Path("some.npz"), np.array([True, False, True]), arrays, 8)) == 2


@pytest.mark.parametrize("offsets", [[0, 5], [0, 3, 3, 9], [1, 4, 9, 20], [0, 4, 9, 10**9], [[0, 1], [2, 3]]], ids=str)
def test_offsets_that_do_not_fit_are_refused(offsets: list) -> None:
    with pytest.raises(DataError, match="do not fit together"):
        read_packed(Path("some.npz"), np.ones(3, bool), {**packed(3), "offsets": np.array(offsets)}, 8)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, jpeg=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="expected arrays jpeg, offsets, offsets missing"):
        read_arrays(path, ("jpeg", "offsets"))
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npz is not a whole \.npz file"):
            read_arrays(path, ("jpeg",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", jpeg=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a whole"):
        read_arrays(tmp_path / "some.npz", ("jpeg",))
