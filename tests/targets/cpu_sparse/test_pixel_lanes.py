"""Rows shifted for each column of a kernel."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.generated_operation import Operation
from spokeshave.jit.operation_loops import patch_items
from spokeshave.jit.operation_sequence import run_sequence
from spokeshave.targets.cpu_sparse.compiled_convolution import Planes
from spokeshave.targets.cpu_sparse.pixel_lanes import RowShifts, row_copier, shifter


def fields(**ends: tuple[np.ndarray, int, int]) -> dict[str, int]:
    return {
        f"{what}_{part}": number
        for what, (array, plane, row) in ends.items()
        for part, number in (("at", array.ctypes.data), ("plane", plane), ("row", row))
    }


def run(operation: Operation, threads: int, **given: int) -> None:
    """Run an operation whose threads all come at once, if the system lets them."""
    table = operation.layout.table(**given)
    run_sequence(np.array([(operation.address, table.ctypes.data)], np.int64), threads)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("threads", [1, 2, 9])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("width", "taps", "stride", "dilation", "padding"),
    [(13, 3, 1, 1, 1), (27, 5, 1, 1, 2), (32, 3, 2, 1, 1), (20, 3, 1, 2, 2), (60, 11, 4, 1, 0)],
)
def test_each_tap_reads_its_own_plane(vectors, threads, packed, width, taps, stride, dilation, padding):
    outputs, channels, rows, lanes, border = (
        (width + 2 * padding - dilation * (taps - 1) - 1) // stride + 1,
        3,
        4,
        vectors.lanes,
        2,
    )
    source = Planes(channels, rows, -(-width // lanes), vectors)
    target = Planes(channels * taps, rows + 2 * border, -(-outputs // lanes), vectors)
    pixels = np.random.default_rng(0).standard_normal((channels, rows, width)).astype(np.float32)
    x, y = source.empty(1), target.empty(1)
    x[:] = y[:] = np.nan
    x[0].reshape(channels, rows, -1)[:, :, :width] = pixels
    operation = shifter(vectors, RowShifts(width, outputs, taps, stride, dilation, padding), packed)
    ends = fields(
        source=(pixels, 4 * rows * width, 4 * width) if packed else (x, source.plane_bytes, source.row_bytes),
        target=(y, target.plane_bytes, target.row_bytes),
    )
    run(operation, threads, **patch_items(channels, rows, threads), border=border, **ends)
    padded = np.pad(pixels, ((0, 0), (0, 0), (padding, padding + taps * dilation)))
    got = y[0].reshape(channels, taps, rows + 2 * border, -1)[..., :outputs]
    assert (got[:, :, :border] == 0).all() and (got[:, :, -border:] == 0).all()
    for tap in range(taps):
        first = tap * dilation
        wanted = padded[:, :, first : first + stride * (outputs - 1) + 1 : stride]
        np.testing.assert_array_equal(got[:, tap, border:-border], wanted)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 15, 16, 100])
def test_rows_are_copied_and_nothing_more(vectors, width, threads):
    x = np.arange(2 * 3 * width, dtype=np.float32).reshape(2, 3, width)
    y = np.full((2, 3, width + 3), -1, np.float32)
    operation = row_copier(vectors, width)
    ends = fields(source=(x, 12 * width, 4 * width), target=(y, 12 * (width + 3), 4 * (width + 3)))
    run(operation, threads, **patch_items(2, 3, threads), **ends)
    np.testing.assert_array_equal(y[:, :, :width], x)
    assert (y[:, :, width:] == -1).all()


def test_padding_has_no_source():
    shifts = RowShifts(5, 5, 3, padding=1)
    assert [shifts.source(0, output) for output in range(5)] == [None, 0, 1, 2, 3]
    assert shifts.source(2, 4) is None
