"""What is measured of the machine: bounds that hold on any, and what is kept of it."""

import dataclasses

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse import roofline as module
from spokeshave.targets.cpu_sparse.roofline import BYTES_A_NONZERO, DENSITIES, Level, Roofline, measure_roofline
from spokeshave.user_cache import FactCache

PAPER = Roofline(1, 1, 200.0, 100.0, {0.05: 25.0, 0.2: 50.0, 1.0: 100.0}, dict.fromkeys(Level, 10.0))


def test_measured_rates_are_those_of_a_machine():
    found = measure_roofline(threads=1)
    assert 0 < max(found.sparse_flops_per_s.values()) < 1.5 * found.peak_flops_per_s
    assert 0 < found.dense_flops_per_s < 1.5 * found.peak_flops_per_s
    assert found.bytes_per_s[Level.L1] > found.bytes_per_s[Level.MEMORY] > 1e8
    assert found.peak_flops_per_s > 1e9 and found.threads == 1 and found.images == 1


def test_it_is_measured_once(monkeypatch):
    first = measure_roofline(threads=1)
    monkeypatch.setattr(module, "_layer_rates", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(module, "_FACTS", FactCache("roofline"))  # as another process would
    assert measure_roofline(threads=1) == first
    with pytest.raises(pytest.fail.Exception):
        measure_roofline(threads=1, fresh=True)


def test_threads_stay_as_they_were():
    before = torch.get_num_threads()
    measure_roofline(threads=2, images=16, fresh=True)
    assert torch.get_num_threads() == before


def test_arithmetic_is_measured_on_one_core_and_multiplied(monkeypatch):
    seen = []

    def rates(*_: object) -> tuple[float, dict[float, float]]:
        seen.append(torch.get_num_threads())
        return 100.0, dict.fromkeys(DENSITIES, 50.0)

    monkeypatch.setattr(module, "_FACTS", FactCache("made up"))
    monkeypatch.setattr(module, "_layer_rates", rates)
    monkeypatch.setattr(module, "_peak", lambda _: 200.0)
    monkeypatch.setattr(module, "_read_rate", lambda _, threads, level: 10.0 if threads == 1 else 4.0)
    found = measure_roofline(threads=3, fresh=True)
    assert seen == [1]
    assert (found.peak_flops_per_s, found.dense_flops_per_s, found.sparse_flops_per_s[0.2]) == (600.0, 300.0, 150.0)
    assert found.alpha(0.2) == pytest.approx(2)
    # Caches of each core add up; of what is shared, several threads get no less than one alone.
    assert [found.bytes_per_s[level] for level in Level] == [30.0, 30.0, 10.0, 10.0]


def test_runs_to_be_compared_take_turns():
    seen = []
    times = module._fastest_s([lambda: seen.append("dense"), lambda: seen.append("sparse")])
    assert seen == ["dense", "sparse"] * (1 + module._ROUNDS) and min(times) > 0


def test_facts_of_another_way_of_measuring_are_not_taken(monkeypatch):
    first = measure_roofline(threads=1)
    monkeypatch.setattr(module, "_METHOD", module._METHOD - 1)
    monkeypatch.setattr(module, "_peak", lambda _: 2 * first.peak_flops_per_s)
    assert measure_roofline(threads=1).peak_flops_per_s == 2 * first.peak_flops_per_s


def test_thin_layers_are_measured_apart_and_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    found = module.with_thin_layers(PAPER)
    assert found.layout_bytes_per_s > 1e7 and found.near_flops_per_s > 1e7
    assert dataclasses.replace(found, layout_bytes_per_s=float("inf"), near_flops_per_s=0.0) == PAPER
    monkeypatch.setattr(module, "_thin_rates", lambda *_: pytest.fail("measured again"))
    more = module.with_thin_layers(dataclasses.replace(PAPER, threads=3))
    assert more.near_flops_per_s == pytest.approx(3 * found.near_flops_per_s)
    assert more.layout_bytes_per_s == pytest.approx(3 * found.layout_bytes_per_s)


def test_few_weights_are_not_read_from_afar():
    found = dataclasses.replace(PAPER, near_flops_per_s=200.0)
    assert found.alpha(1.0) == found.alpha(1.0, 2.0 * Level.L2.value) == pytest.approx(1)
    assert found.alpha(1.0, Level.L2.value) == pytest.approx(0.5) and found.alpha(0.2, 1.0) == found.alpha(0.2)
    slower = dataclasses.replace(PAPER, near_flops_per_s=10.0)  # measured in a disturbed moment
    assert slower.alpha(1.0, 1.0) == PAPER.alpha(1.0)


def test_no_thread_is_refused():
    with pytest.raises(InvalidArgument, match="at least 1 thread"):
        measure_roofline(threads=0)


def test_alpha_falls_between_what_was_measured():
    assert PAPER.alpha(0.05) == pytest.approx(4) and PAPER.alpha(1.0) == pytest.approx(1)
    assert PAPER.alpha(0.1) == pytest.approx(100 / 37.5)  # half way on the logarithmic scale from 0.05 to 0.2
    assert PAPER.alpha(0.001) == pytest.approx(4) and PAPER.alpha(0.0) == pytest.approx(4)
    rates = PAPER.rates(0.2, Level.L2)
    assert (rates.alpha, rates.beta, rates.bytes_per_s) == (pytest.approx(2), BYTES_A_NONZERO, 10.0)


def test_data_lies_in_the_fastest_level_that_holds_it():
    assert PAPER.level_of(1000) is Level.L1 and PAPER.level_of(200e3) is Level.L2
    assert PAPER.level_of(5e6) is Level.LAST_LEVEL_CACHE and PAPER.level_of(1e9) is Level.MEMORY
    assert dataclasses.replace(PAPER, threads=8).level_of(200e3) is Level.L1


@pytest.mark.parametrize(
    "damage", [None, [], {}, {"bytes_per_s": {"L9": 1}}, {"sparse_flops_per_s": [1.0]}, {"dense_flops_per_s": -1.0}]
)
def test_facts_that_make_no_sense_are_measured_again(damage):
    whole = module._encoded(PAPER)
    assert module._decoded(whole) == PAPER and len(DENSITIES) == 3
    assert module._decoded(whole | damage if damage and isinstance(damage, dict) else damage) is None
