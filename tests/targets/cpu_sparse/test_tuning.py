"""Measured choices: any of them computes the same, and what was measured is measured once."""

import dataclasses
import json
import time

import numpy as np
import pytest

from sparse_cases import SETS, steps_of, thin
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.operation_sequence import run_sequence
from spokeshave.targets.cpu_sparse import tuning
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution, Planes
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine
from spokeshave.targets.cpu_sparse.tile_choice import Density, Outputs, other_blocks, variations
from spokeshave.targets.cpu_sparse.work_loop import work_loop
from spokeshave.user_cache import FactCache

VECTORS = SETS[0]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "_TILINGS", FactCache("tilings"))


def work(density: float = 0.2) -> tuning.ConvolutionWork:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((10, 6, 3, 3)) * (rng.random((10, 6, 3, 3)) < density)).astype(np.float32)
    return tuning.ConvolutionWork(
        lambda: weight, str(density), Density.of(weight), np.arange(10, dtype=np.float32), 1,
        Outputs(9, 14, (3, 3), (1, 1), (1, 1)), Planes(38, 11, 16, VECTORS), Planes(42, 9, 14, VECTORS), None, True, 1,
    )  # fmt: skip


def result(layer: tuning.ConvolutionWork, code: CompiledConvolution) -> np.ndarray:
    source = np.random.default_rng(1).standard_normal((layer.source.bytes // 4,)).astype(np.float32)
    ends = [aligned_zeros((layer.source.bytes // 4,)), aligned_zeros((layer.target.bytes // 4,))]
    ends[0][:] = source
    scratch = aligned_zeros((code.scratch_bytes // 4,))
    table = code.table(ends[0].ctypes.data, ends[1].ctypes.data, scratch.ctypes.data)
    run_sequence(np.array([(work_loop().address, table.ctypes.data)], np.int64), 1)
    return ends[1][: 10 * layer.target.plane_bytes // 4]


def test_every_choice_computes_the_same():
    layer = work()
    wanted = result(layer, CompiledConvolution(layer.generate(layer.first)))
    arguments = (layer.outputs, VECTORS, layer.density)
    choices = [*other_blocks(*arguments, True, 1, 6), *variations(layer.first, *arguments, 1)]
    assert len(choices) > 6 and wanted.max() > 1
    for choice in choices:
        got = result(layer, CompiledConvolution(layer.generate(choice)))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_without_time_the_arithmetic_decides():
    layer = work()
    assert tuning.tuned(layer, 0.0) == layer.first
    assert tuning.tuned(work(), 10.0) != object() and tuning._TILINGS.get(layer.geometry)  # now it was measured


def test_what_was_measured_is_not_measured_again(monkeypatch):
    layer = work()
    best = tuning.tuned(layer, 5.0)
    monkeypatch.setattr(tuning, "_measured", lambda *_: pytest.fail("measured again"))
    assert tuning.tuned(work(), 5.0) == best
    monkeypatch.setattr(tuning, "_TILINGS", FactCache("tilings"))  # as another process would
    assert tuning.tuned(work(), 5.0) == best


def test_threads_write_their_bands_around_a_convolution_that_is_timed(monkeypatch):
    sequences = []
    monkeypatch.setattr(tuning, "run_sequence", lambda steps, threads: sequences.append((len(steps), threads)))
    for threads in (1, 2):
        tuning._Race(dataclasses.replace(work(), threads=threads), 0.0).enter([work().first])
    assert sequences and set(sequences) == {(1, 1), (3, 2)}


def test_choices_for_threads_compute_the_same():
    layer = dataclasses.replace(work(), threads=2)
    race = tuning._Race(layer, time.monotonic() + 60)
    source, target = race._memory[:2]
    source[:] = np.random.default_rng(1).standard_normal(source.shape)
    race.enter([layer.first])
    got = target.copy()
    np.testing.assert_allclose(
        got[: 10 * layer.target.plane_bytes // 4],
        result(work(), CompiledConvolution(work().generate(work().first))),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "damage",
    [
        {"tile": [400, 1]},
        {"filters": 0},
        {"filters": 3},
        {"tiling": {"speed": 1}},
        {"tile": "x"},
        {"tiling": {"shares": -1}},
    ],
)
def test_a_choice_that_cannot_be_is_not_taken_from_the_file(damage):
    layer = work()
    tuning._TILINGS.keep({layer.geometry: tuning._encoded(layer.first) | damage})
    assert tuning.tuned(layer, 0.0) == layer.first


def test_a_layer_beyond_the_limit_is_not_tuned(monkeypatch):
    monkeypatch.setattr(tuning, "MOST_BYTES", 1000)
    monkeypatch.setattr(tuning, "_measured", lambda *_: pytest.fail("measured"))
    assert tuning.tuned(work(), 5.0)


def test_code_comes_from_the_disk_the_second_time(tmp_path, monkeypatch):
    layer = work()
    wanted = result(layer, tuning.compiled(layer, 0.0))
    monkeypatch.setattr(tuning.ConvolutionWork, "generate", lambda *_: pytest.fail("generated again"))
    np.testing.assert_array_equal(result(layer, tuning.compiled(work(), 0.0)), wanted)
    with pytest.raises(pytest.fail.Exception):
        tuning.compiled(work(0.3), 0.0)  # other weights


def test_an_engine_divides_the_time_among_its_layers(monkeypatch):
    import torch
    from torch import nn

    given = []
    real = tuning.compiled
    monkeypatch.setattr(
        "spokeshave.targets.cpu_sparse.native_engine.compiled",
        lambda layer, budget_s: given.append(budget_s) or real(layer, 0.0),
    )
    torch.manual_seed(0)
    network = thin(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), 0.5)
    engine: NativeEngine = BatchLanesEngine(steps_of(network, torch.zeros(1, 3, 12, 12)), VECTORS, 1, tune_s=2.0)
    assert len(given) == 2 and abs(sum(given) - 2.0) < 1e-9 and 0 < given[0] < given[1] and engine.arena_bytes > 0


def test_choices_are_kept_as_plain_json(tmp_path):
    tuning.tuned(work(), 5.0)
    kept = json.loads((tmp_path / "tilings.json").read_text())
    assert list(kept["facts"]) == [work().geometry]
