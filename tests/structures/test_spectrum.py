"""The spectrum against NumPy's singular values and the definition of the error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spokeshave.errors import InvalidArgument
from spokeshave.structures.spectrum import (
    break_even_rank,
    principal_components,
    rank_for_error,
    rank_for_norm,
    reconstruction_error,
    singular_values,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))


def matrix(shape: tuple[int, int, int]) -> torch.Tensor:
    filters, taps, seed = shape
    return torch.randn(filters, taps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_energies_are_squared_singular_values_of_the_filters_as_they_are(shape: tuple[int, int, int]) -> None:
    filters = matrix(shape) + 3  # not centred
    energies, vectors = principal_components(filters)
    wanted = np.zeros(len(filters))
    values = np.linalg.svd(filters.numpy(), compute_uv=False)
    wanted[: len(values)] = values**2
    assert np.allclose(energies.numpy(), wanted, rtol=1e-9, atol=1e-9 * wanted[0])
    assert np.allclose((vectors.T @ vectors).numpy(), np.eye(len(filters)), atol=1e-10)
    assert np.allclose(singular_values(filters).numpy(), values)


@given(shapes, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_rank_is_the_smallest_whose_truncation_loses_no_more(shape: tuple[int, int, int], error: float) -> None:
    filters = matrix(shape)
    energies, vectors = principal_components(filters)
    rank = rank_for_error(energies, error)

    def lost(kept: int) -> float:
        part = vectors[:, :kept]
        return float((filters - part @ part.T @ filters).square().sum() / filters.square().sum())

    assert 1 <= rank <= len(filters)
    assert lost(rank) <= error + 1e-9
    assert rank == 1 or lost(rank - 1) > error - 1e-9
    assert reconstruction_error(energies, rank) == pytest.approx(lost(rank), abs=1e-9)


def test_the_rules_of_pca_and_svd_differ_as_in_the_authors_code() -> None:
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])  # squared norm 22
    assert rank_for_error(values.square(), 0.05) == 3  # 21 of 22 is 95.5 %
    assert rank_for_norm(values, 0.95) == 2  # sqrt(20 / 22) is 95.3 %
    assert rank_for_error(values.square(), 0.0) == 4 and rank_for_error(values.square(), 1.0) == 1


def test_a_layer_of_zeros_has_rank_one_and_no_error() -> None:
    energies, _ = principal_components(torch.zeros(3, 5))
    assert rank_for_error(energies, 0.0) == 1 and reconstruction_error(energies, 1) == 0


@given(st.integers(1, 40), st.integers(1, 40))
def test_break_even_is_the_last_rank_that_saves_weights(inputs: int, outputs: int) -> None:
    rank = break_even_rank(inputs, outputs)
    assert rank * (inputs + outputs) < inputs * outputs <= (rank + 1) * (inputs + outputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: principal_components(torch.tensor([[float("nan")]])), "finite"),
        (lambda: principal_components(torch.zeros(2, 0)), r"\(2, 0\)"),
        (lambda: rank_for_error(torch.ones(2), 1.5), r"1\.5"),
        (lambda: rank_for_norm(torch.ones(2), -0.1), r"-0\.1"),
    ],
)
def test_wrong_numbers_are_refused(call: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        call()
