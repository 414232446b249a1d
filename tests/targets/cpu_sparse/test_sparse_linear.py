"""Sparse linear layers against numpy."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sparse_cases import LAYOUTS, SETS, error, in_double, steps_of, thin, through
from spokeshave.targets.cpu_sparse.network_steps import Multiply
from spokeshave.targets.cpu_sparse.sparse_linear import UNROLL, PackedRows, pack_for_gathering, pack_for_images
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight


def matrix(rows: int, columns: int, density: float) -> np.ndarray:
    rng = np.random.default_rng(rows * columns)
    return np.where(rng.random((rows, columns)) < density, rng.standard_normal((rows, columns)), 0).astype(np.float32)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (10, 500), (70, 1300)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_products_match_torch(vectors, layout, shape, density):
    network = thin(nn.Sequential(nn.Linear(shape[1], shape[0]), nn.ReLU()), density)
    x = torch.randn(vectors.lanes + 1, shape[1], generator=torch.Generator().manual_seed(0))
    assert error(through(layout, network, x, vectors, threads=2), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_beyond_sixteen_bits_are_found(layout):
    network = thin(nn.Sequential(nn.Linear(70_000, 20)), 0.01)
    x = torch.randn(2, 70_000, generator=torch.Generator().manual_seed(0))
    assert error(through(layout, network, x, SETS[0]), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_reaches_only_the_rows_that_use_it(layout):
    network = thin(nn.Sequential(nn.Linear(40, 50)), 0.1)
    linear = network[0]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight[7] = 0
    for column in (0, 17, 39):
        x = torch.ones(1, 40)
        x[0, column] = torch.nan
        got = through(layout, network, x, SETS[0], poison=0.0)[0]
        assert torch.equal(got.isnan(), linear.weight[:, column] != 0)


@pytest.mark.parametrize("lanes", [4, 16])
def test_rows_side_by_side_hold_every_nonzero_once(lanes):
    weight = matrix(37, 90, 0.2)
    weight[[3, 8, 30]] = 0
    packed = pack_for_gathering(StoredWeight.of(weight), lanes)
    found = np.zeros_like(weight)
    for group, rows in enumerate(packed.rows.reshape(-1, lanes)):
        for entry in range(packed.starts[group], packed.starts[group + 1]):
            if rows[(entry - packed.starts[group]) % lanes] >= 0:
                found[rows[(entry - packed.starts[group]) % lanes], packed.columns[entry]] += packed.values[entry]
    np.testing.assert_allclose(found, weight, rtol=1e-6)  # what pads a row has its part of the last weight
    assert sorted(row for row in packed.rows if row >= 0) == list(range(37))


PACKS = [partial(pack_for_gathering, lanes=8), partial(pack_for_images, vector_bytes=64)]


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_packed_is_found_again_bit_for_bit(pack, density, half):
    weight = matrix(133, 1100, density)
    weight[[3, 8, 130]] = 0
    weight[5, 3:9] = [np.nan, np.inf, -np.inf, 1e38, 1e-20, -3e-25]
    weight[6], weight[6, 1000] = 0, -np.inf
    if half:
        weight = StoredWeight.of(weight).rounded().dense()
    packed = PackedRows.of(pack(StoredWeight.of(weight)).arrays())
    found = packed.unpacked(weight.shape)
    assert packed.values.dtype == (np.uint16 if half else np.float32)
    np.testing.assert_array_equal(found.places, StoredWeight.of(weight).places)
    np.testing.assert_array_equal(found.dense().view(np.uint32), weight.view(np.uint32))


@pytest.mark.parametrize("pack", PACKS)
def test_weights_whose_padding_is_no_half_float_stay_whole(pack):
    weight = np.zeros((4, 100), np.float32)
    weight[2, 7] = np.float32(2.0**-95)
    packed = pack(StoredWeight.of(weight))
    assert packed.values.dtype == np.float32
    np.testing.assert_array_equal(packed.unpacked(weight.shape).dense(), weight)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (10, 500), (70, 1300), (20, 70_000)])
def test_products_with_half_floats_match_torch(vectors, layout, shape):
    network = thin(nn.Sequential(nn.Linear(shape[1], shape[0]), nn.ReLU()), 0.1 if shape[1] > 1 else 1.0)
    with torch.no_grad():
        network[0].weight.copy_(network[0].weight.bfloat16())
    x = torch.randn(vectors.lanes + 1, shape[1], generator=torch.Generator().manual_seed(0))
    assert error(through(layout, network, x, vectors, threads=2), in_double(network, x)) < 1e-5


def test_rounded_values_are_the_nearest_and_drop_what_becomes_zero():
    values = np.array([[1.0, 1.00390625, 1.01171875, -3.1415927, 1e-45, np.inf, 0.0]], np.float32)
    found = StoredWeight.of(values).rounded()
    assert found.dense().tolist() == [[1.0, 1.0, 1.015625, -3.140625, 0.0, np.inf, 0.0]] and found.nonzeros == 5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vectors", SETS)
def test_an_engine_lets_go_of_a_matrix_that_it_holds_in_its_own_order(layout, vectors):
    network = thin(nn.Sequential(nn.Linear(70, 40)), 0.2)
    steps = steps_of(network, torch.ones(1, 70))
    weight = next(step.weight for step in steps.steps if isinstance(step, Multiply))
    places, values, digest = weight.places, weight.values, weight.digest
    layout(steps, vectors, 1)
    assert weight.bytes == 0
    np.testing.assert_array_equal(weight.places, places)
    np.testing.assert_array_equal(weight.values, values)
    copied = pickle.loads(pickle.dumps(weight))
    assert copied.bytes == values.nbytes + places.nbytes and copied.digest == weight.digest == digest


def test_visits_are_whole_runs_of_the_unrolled_loop():
    packed = pack_for_images(StoredWeight.of(matrix(100, 2000, 0.1)), 64)
    assert packed.passes == 4 and not (packed.starts % UNROLL).any()
    assert packed.values.sum() == pytest.approx(matrix(100, 2000, 0.1).sum(), abs=1e-2)


@pytest.mark.parametrize(("value", "wanted"), [(1.1, 6), (1.0, 4)])
def test_bytes_count_six_for_a_nonzero_and_four_where_halves_do(value, wanted):
    packed = pack_for_gathering(StoredWeight.of(np.full((16, 1024), value, np.float32)), 16)
    assert wanted * 16 * 1024 <= packed.bytes <= 1.05 * wanted * 16 * 1024


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_infinite_feature_gives_infinity_where_a_weight_meets_it(layout, vectors):
    """Whatever pads the rows: dense rows aside, no 0 times infinity is added."""
    network = thin(nn.Sequential(nn.Linear(40, 50)), 0.1)
    weight = network[0].weight.detach()
    for column in (3, 39):
        for value in (torch.inf, -torch.inf):
            x = torch.ones(2, 40)
            x[:, column] = value
            got = through(layout, network, x, vectors, poison=0.0)
            met = weight[:, column] != 0
            assert torch.equal(got[:, met], (weight[met, column] * value).expand(2, -1))
            assert got[:, ~met].isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_no_numbers_stay_what_they_are(layout):
    network = thin(nn.Sequential(nn.Linear(40, 50)), 0.1)
    with torch.no_grad():
        network[0].weight[0, 39], network[0].weight[1, 39] = torch.inf, torch.nan
    got = through(layout, network, torch.ones(1, 40), SETS[0], poison=0.0)[0]
    assert got[0] == torch.inf and got[1].isnan() and got[2:].isfinite().all()
