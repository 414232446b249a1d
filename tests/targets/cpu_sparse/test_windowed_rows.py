"""Windowed rows: what packs is found again bit for bit, and products against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from sparse_cases import error, in_double, thin, through
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.targets.cpu_sparse.pixel_lanes_engine import PixelLanesEngine
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight
from spokeshave.targets.cpu_sparse.windowed_rows import FEATURE, WindowedRows, fits, pack_windows

with_expand = pytest.mark.skipif(FEATURE not in host_cpu().features, reason=f"this CPU does not have {FEATURE}")


def matrix(rows: int, columns: int, density: float) -> np.ndarray:
    rng = np.random.default_rng(rows * columns)
    return np.where(rng.random((rows, columns)) < density, rng.standard_normal((rows, columns)), 0).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 32), (16, 33), (17, 100), (530, 64), (40, 1000)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_what_is_packed_is_found_again_bit_for_bit(shape, density):
    weight = matrix(shape[0], shape[1], density)
    weight[::5] = 0
    weight.flat[0] = np.nan
    found = WindowedRows.of(pack_windows(StoredWeight.of(weight)).arrays()).unpacked(shape)
    assert found.shape == shape and found.places.dtype == np.uint32
    np.testing.assert_array_equal(found.dense().view(np.uint32), weight.view(np.uint32))
    np.testing.assert_array_equal(found.places, StoredWeight.of(weight).places)


def test_a_step_multiplies_by_features_of_one_window_only():
    weight = StoredWeight.of(matrix(100, 345, 0.3))
    packed = pack_windows(weight)
    assert packed.columns.max() < 32 and (packed.heads >> 16).max() * 16 + 32 <= -(-345 // 16) * 16
    assert len(packed.values) == weight.nonzeros == np.bitwise_count(packed.heads & 0xFFFF).sum()
    assert packed.starts[-1].tolist() == [len(packed.heads), weight.nonzeros]


@with_expand
def test_dense_enough_matrices_of_enough_columns_run_so():
    assert fits(StoredWeight.of(matrix(64, 640, 0.1)), VectorSet.AVX512)
    assert not fits(StoredWeight.of(matrix(64, 640, 0.1)), VectorSet.AVX2)
    assert not fits(StoredWeight.of(matrix(64, 640, 0.01)), VectorSet.AVX512)
    assert not fits(StoredWeight.of(matrix(64, 31, 1.0)), VectorSet.AVX512)


def assert_windowed(network: nn.Module) -> torch.Tensor:
    """Look whether the first layer is computed so; its weight."""
    weight = next(network.parameters()).detach()
    assert fits(StoredWeight.of(weight.numpy()), VectorSet.AVX512)
    return weight


@with_expand
@pytest.mark.parametrize("shape", [(16, 32), (50, 33), (70, 1300), (1, 4000), (1000, 100)])
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("after", [nn.Identity(), nn.ReLU()])
def test_products_match_torch(shape, density, after):
    network = thin(nn.Sequential(nn.Linear(shape[1], shape[0]), after), density)
    if shape[0] > 1:  # one row alone does not fill a step
        assert_windowed(network)
    x = torch.randn(3, shape[1], generator=torch.Generator().manual_seed(0))
    for threads in (1, 3):
        got = through(PixelLanesEngine, network, x, VectorSet.AVX512, threads=threads)
        assert error(got, in_double(network, x)) < 1e-5


@with_expand
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_reaches_only_the_rows_that_use_it(value):
    network = thin(nn.Sequential(nn.Linear(100, 50)), 0.3)
    weight = assert_windowed(network)
    weight[20] = 0
    for column in (0, 31, 32, 63, 99):
        x = torch.ones(1, 100)
        x[0, column] = value
        got = through(PixelLanesEngine, network, x, VectorSet.AVX512, poison=0.0)[0]
        met = weight[:, column] != 0
        assert got[~met].isfinite().all()
        expected = weight[met, column] * value
        assert torch.equal(got[met].isnan(), expected.isnan()) and torch.equal(
            got[met].nan_to_num(), expected.nan_to_num()
        )


@with_expand
def test_weights_that_are_no_numbers_stay_what_they_are():
    network = thin(nn.Sequential(nn.Linear(100, 50)), 0.3)
    weight = assert_windowed(network)
    weight[0, 99], weight[1, 3] = torch.inf, torch.nan
    got = through(PixelLanesEngine, network, torch.ones(1, 100), VectorSet.AVX512, poison=0.0)[0]
    assert got[0] == torch.inf and got[1].isnan() and got[2:].isfinite().all()
