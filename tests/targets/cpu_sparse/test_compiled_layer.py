"""Compiled layers: found again, given up with their weights, refused where they cannot be."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from sparse_cases import SETS
from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.targets.cpu_sparse import compiled_layer
from spokeshave.targets.cpu_sparse.compiled_layer import CompiledLayers, Kernel, compiled_layers, stored
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps
from spokeshave.targets.cpu_sparse.segment import Segment
from spokeshave.targets.cpu_sparse.sparse_linear_op import sparse_linear


def layer(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(40, generator=generator)[:9].sort().values
    return torch.randn(9, generator=generator), places, torch.randn(4, generator=generator)


def call(weights: tuple[Tensor, Tensor, Tensor], x: Tensor, kernel: Kernel = Kernel.AUTO) -> Tensor:
    return sparse_linear(x, *weights, [4, 10], False, kernel.value)


def dense(weights: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    matrix = torch.zeros(40)
    matrix[weights[1]] = weights[0].detach()
    return x @ matrix.reshape(4, 10).T + weights[2]


@pytest.fixture
def fresh(monkeypatch):
    layers = CompiledLayers()
    monkeypatch.setattr(compiled_layer, "compiled_layers", lambda: layers)
    return layers


def test_equal_weights_share_code_and_code_goes_with_the_weights(fresh):
    one, same, other = layer(0), layer(0), layer(1)
    assert fresh.code(one) is fresh.code(one) is fresh.code(same)
    assert fresh.code(other) is not fresh.code(one) and len(fresh) == 2
    del other
    gc.collect()
    assert len(fresh) == 1
    del one
    gc.collect()
    assert len(fresh) == 1  # the other weights of the same content are there still
    del same
    gc.collect()
    assert len(fresh) == 0


@pytest.mark.parametrize("place", [0, 2])
def test_weights_that_are_written_to_are_seen(fresh, place):
    weights, x = layer(), torch.randn(3, 10)
    call(weights, x)
    weights[place].mul_(3)
    torch.testing.assert_close(call(weights, x, Kernel.GENERATED), dense(weights, x))
    assert len(fresh) == 1


def test_memory_that_is_used_again_is_not_mistaken(fresh):
    x = torch.randn(2, 10)
    for seed in range(30):  # the allocator hands out the same addresses again and again
        weights = layer(seed)
        torch.testing.assert_close(call(weights, x, Kernel.GENERATED), dense(weights, x))
        del weights
    assert len(fresh) <= 1


def test_inference_tensors_are_told_by_their_content(fresh):
    with torch.inference_mode():
        weights, x = tuple(part.clone() for part in layer()), torch.randn(3, 10)
        call(weights, x)
        weights[0].mul_(2)
        torch.testing.assert_close(call(weights, x, Kernel.GENERATED), dense(weights, x))


def test_weights_in_training_are_not_compiled(fresh):
    values, places, bias = layer()
    call((values.requires_grad_(), places, bias), torch.randn(2, 10))
    assert len(fresh) == 0
    call((values.detach(), places, bias), torch.randn(2, 10))
    assert len(fresh) == 1


def test_the_least_recent_sizes_are_dropped(fresh):
    code = fresh.code(weights := layer())
    made = []

    def make(form: object) -> Segment:
        made.append(form)
        return Segment(NetworkSteps([], {}, [], []), SETS[0])

    for form in [*range(compiled_layer.SIZES_OF_INPUT), 0, "new", 0, 1]:
        code.segment(form, lambda form=form: make(form))
    assert made == [*range(compiled_layer.SIZES_OF_INPUT), "new", 1] and len(weights) == 3


def test_threads_compile_once(fresh, monkeypatch):
    made = []
    prepare = Segment.__init__
    monkeypatch.setattr(Segment, "__init__", lambda *given: made.append(1) or prepare(*given))
    weights, x = layer(), torch.randn(2, 10)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(weights, x), range(40)))
    assert len(made) == 1


@pytest.mark.parametrize("places", [[0, 0, 1], [2, 1, 3], [-1, 0, 1], [1, 2, 4], [1, 2]])
def test_places_outside_or_out_of_order_are_refused(places):
    with pytest.raises(InvalidArgument, match="places"):
        stored(torch.ones(3), torch.tensor(places), [2, 2])


def test_generated_code_is_for_float32():
    values, places, bias = layer()
    x = torch.randn(2, 10, dtype=torch.float64)
    with pytest.raises(InvalidArgument, match="float32"):
        call((values, places, bias), x, Kernel.GENERATED)
    assert call((values, places, bias), x).dtype == torch.float64


def test_where_code_is_forbidden_the_reference_runs_with_one_warning(fresh, monkeypatch):
    def refuse(*given: object) -> None:
        raise JitRefused("the system refuses generated code")

    monkeypatch.setattr(Segment, "__init__", refuse)
    weights, x = layer(), torch.randn(2, 10)
    with pytest.warns(RuntimeWarning, match="refuses"):
        torch.testing.assert_close(call(weights, x), dense(weights, x))
    torch.testing.assert_close(call(weights, x), dense(weights, x))  # a second warning would fail the test
    with pytest.raises(JitRefused):
        call(weights, x, Kernel.GENERATED)


def test_the_process_has_one():
    assert compiled_layers() is compiled_layers()
