"""Images into the lanes of vectors and back."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.targets.cpu_sparse.batch_lanes import few_pixels, packer, unpacker


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("pixels", [1, 3, 16, 17, 50])
def test_there_and_back(vectors, pixels):
    lanes, channels = vectors.lanes, 5
    images = np.random.default_rng(0).standard_normal((lanes, channels, pixels)).astype(np.float32)
    inside, back = aligned_zeros((channels, pixels, lanes)), np.zeros_like(images)
    few = pixels < lanes
    ways = [few_pixels(vectors, True), few_pixels(vectors, False)] if few else [packer(vectors), unpacker(vectors)]
    places = np.arange(pixels, dtype=np.int64) * vectors.bytes
    for operation, outside in zip(ways, (images, back), strict=True):
        addresses = outside.ctypes.data + np.arange(lanes) * outside.strides[0]
        table = operation.layout.table(
            channels, images_at=addresses.ctypes.data, image_plane=4 * pixels, pixels=pixels,
            lanes_at=inside.ctypes.data, lanes_plane=pixels * vectors.bytes, places_at=places.ctypes.data,
        )  # fmt: skip
        operation.function(table.ctypes.data, 0, 1)
    np.testing.assert_array_equal(inside, images.transpose(1, 2, 0))
    np.testing.assert_array_equal(back, images)
