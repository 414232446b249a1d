"""Zeros around planes."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.targets.cpu_sparse.borders import zero_border
from spokeshave.targets.cpu_sparse.compiled_convolution import Planes


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize(("above", "beside"), [(1, 1), (2, 0), (0, 3)])
def test_the_border_becomes_zero_and_the_inside_stays(vectors, above, beside):
    planes = Planes(2, 7, 9, vectors)
    data = planes.empty(1)
    data[:] = 5
    operation = zero_border(vectors)
    table = operation.layout.table(
        2, target_at=data.ctypes.data, target_plane=planes.plane_bytes, target_row=planes.row_bytes, rows=7, columns=9,
        above=above, beside=beside,
    )  # fmt: skip
    operation.function(table.ctypes.data, 0, 1)
    wanted = np.zeros((7, 9))
    wanted[above : 7 - above, beside : 9 - beside] = 5
    np.testing.assert_array_equal(data[0], np.broadcast_to(wanted[None, :, :, None], data[0].shape))
