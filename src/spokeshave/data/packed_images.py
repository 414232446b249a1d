"""Encoded images back to back in one array of bytes, in an .npz file: JPEG files without a file each."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from spokeshave.data.image_folder import read_images
from spokeshave.errors import DataError


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file; nothing is unpickled.

    Args:
        path: of the file.
        names: that must be in it; others are left alone.

    Raises:
        DataError: where the file is damaged, or one is missing.
    """
    try:
        # Opened here: numpy leaves a file open whose archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataError(f"{path}: expected arrays {', '.join(names)}, {', '.join(missing)} missing")
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a whole .npz file: {error}; copy or make it again") from error


def read_packed(
    path: Path, chosen: Bool[np.ndarray, " n"], arrays: dict[str, np.ndarray], size: int
) -> UInt8[np.ndarray, "k 3 size size"]:
    """Decode some of the images of a file.

    Args:
        path: of the file, for messages.
        chosen: which.
        arrays: of the file: `jpeg`, the bytes, and `offsets`, n+1 places where images begin and the last one ends.
        size: height and width that every image gets; grey ones get three equal planes.

    Raises:
        DataError: where the arrays do not fit together, or an image is damaged.
    """
    data, offsets = arrays["jpeg"], arrays["offsets"]
    whole = offsets.ndim == 1 and len(offsets) == len(chosen) + 1 and data.dtype == np.uint8
    if not whole or (np.diff(offsets) <= 0).any() or offsets[0] != 0 or offsets[-1] != len(data):
        raise DataError(f"{path}: jpeg, offsets and labels do not fit together; copy or make the file again")

    def files() -> Iterator[tuple[str, BytesIO]]:
        for place in np.flatnonzero(chosen):
            yield f"{path}, image {place}", BytesIO(data[offsets[place] : offsets[place + 1]].tobytes())

    return read_images(files(), int(chosen.sum()), size, size, 3)
