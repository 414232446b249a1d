"""Generated convolutions against torch in float64, over random geometries."""

import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_cases import LAYOUTS, SETS, error, in_double, thin, through
from spokeshave.targets.cpu_sparse.compiled_convolution import Planes, starts

pair = st.tuples(st.integers(1, 5), st.integers(1, 5))
small = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(
    groups=st.sampled_from([1, 1, 2, 3]),
    channels=st.integers(1, 6),
    filters=st.integers(1, 6),
    kernel=pair,
    stride=small,
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 64)),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    vectors=st.sampled_from(SETS),
    layout=st.sampled_from(LAYOUTS),
    threads=st.integers(1, 4),
    images=st.integers(1, 5),
    rectify=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_geometry_matches_torch(
    groups, channels, filters, kernel, stride, dilation, padding, size, density, vectors, layout, threads, images,
    rectify, seed,
):  # fmt: skip
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    torch.manual_seed(seed)
    convolution = nn.Conv2d(groups * channels, groups * filters, kernel, stride, padding, dilation, groups)
    network = thin(nn.Sequential(convolution, *([nn.ReLU()] if rectify else [])), density, seed)
    x = torch.randn(images, groups * channels, *size)
    assert error(through(layout, network, x, vectors, threads), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_depthwise_convolution_matches_torch(vectors, layout):
    torch.manual_seed(0)
    network = thin(nn.Sequential(nn.Conv2d(20, 20, 3, padding=1, groups=20)), 0.5)
    x = torch.randn(3, 20, 17, 19)
    assert error(through(layout, network, x, vectors), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_stays_with_the_outputs_that_read_it(layout):
    torch.manual_seed(0)
    network = thin(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()), 1.0)
    x = torch.randn(2, 2, 9, 9)
    x[0, 1, 4, 4] = torch.nan
    got, wanted = through(layout, network, x, SETS[0], poison=0.0), network(x).detach()
    assert torch.equal(got.isnan(), wanted.isnan()) and wanted.isnan().sum() == 27


def test_the_last_tile_overlaps_the_one_before():
    assert starts(13, 5) == [0, 5, 8] and starts(4, 4) == [0] and starts(9, 3) == [0, 3, 6]


def test_places_are_counted_in_bytes():
    planes = Planes(2, 3, 4, SETS[0])
    assert planes.row_bytes == 4 * SETS[0].bytes and planes.plane_bytes == 3 * planes.row_bytes
    assert planes.place(1, 2) == planes.row_bytes + 2 * SETS[0].bytes and planes.bytes == 2 * planes.plane_bytes


GUARDED = """
    import ctypes, mmap, sys
    import numpy as np, torch
    from torch import nn
    from spokeshave.targets.cpu_sparse import native_engine, sparse_linear, windowed_rows
    from sparse_cases import LAYOUTS, SETS, error, thin, through, in_double

    libc, kept = ctypes.CDLL(None, use_errno=True), []

    def guarded(shape, dtype=np.float32, align=64):  # the array ends where a forbidden page begins
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        size = -(-size // align) * align
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        block = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        for page in (start, start + mmap.PAGESIZE + pages):
            assert libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
        kept.append(block)
        first = mmap.PAGESIZE + pages - size
        raw = np.frombuffer(block, np.uint8)[first : first + size]
        return raw[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    for module in (native_engine, sparse_linear, windowed_rows):
        module.aligned_zeros = guarded
    torch.manual_seed(0)
    for layout in LAYOUTS:
        for vectors in SETS:
            for size, kernel, stride, padding in (((13, 13), 3, 1, 1), ((27, 27), 5, 1, 2), ((9, 33), 3, 2, 0)):
                network = thin(nn.Sequential(nn.Conv2d(6, 7, kernel, stride, padding), nn.ReLU()), 0.4)
                x = torch.from_numpy(guarded((2, 6, *size), align=4)).normal_()
                assert error(through(layout, network, x, vectors, 2), in_double(network, x)) < 1e-5
            for features, rows, density in ((100, 50, 0.3), (33, 17, 1.0), (300, 40, 0.05)):
                network = thin(nn.Sequential(nn.Linear(features, rows)), density)
                x = torch.from_numpy(guarded((2, features), align=4)).normal_()
                assert error(through(layout, network, x, vectors, 2), in_double(network, x)) < 1e-5
    print("inside")
"""


def test_nothing_outside_the_memory_is_touched(request):
    folder = str(request.config.rootpath / "tests")
    script = f"import sys; sys.path.insert(0, {folder!r})\n" + textwrap.dedent(GUARDED)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "inside", done.stderr
