"""Numbers as text: rounding at the edges of units, and the sentence that sums a run up."""

import dataclasses

import pytest

from spokeshave.measure import Comparison, LatencyRatio
from spokeshave.report.run_record import RunRecord
from spokeshave.report.wording import count, headline_timing, scientific, seconds, times, times_fewer, unbroken, verdict


def timing(batch_size: int, threads: int, ratio: float) -> LatencyRatio:
    return LatencyRatio(batch_size, threads, ratio, 0.25, ratio * 1e-3, 1e-5, 1e-3, 1e-5, 30)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.9, "1.00 k"),
        (1000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_960, "1.00 M"),
        (7.24e8, "724 M"),
    ],
)
def test_count(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0"),
        (9.994e-7, "1.00 µs"),
        (0.00099, "990 µs"),
        (0.001, "1.00 ms"),
        (1.5, "1.50 s"),
        (3661, "1 h 1 min"),
    ],
)
def test_seconds(duration_s: float, text: str) -> None:
    assert seconds(duration_s) == text


def test_ratios_round_without_flipping_digits() -> None:
    assert [times(9.996), times(99.96), times(1234.5)] == ["10.0×", "100×", "1,234×"]
    assert times_fewer(0, 0) == "as many"
    assert scientific(1e-12) == "1.0 × 10⁻¹²"


def test_units_stay_with_their_numbers() -> None:
    assert unbroken("0.9 % of 5 kB in 3 ms, 2 runs") == "0.9\xa0% of 5\xa0kB in 3\xa0ms, 2 runs"


def test_verdict_in_full(record: RunRecord) -> None:
    dense = dataclasses.replace(record.baseline.measurement, flops=4_000_000, parameters=90)
    small = dataclasses.replace(record.final.measurement, flops=200_000, parameters=30)
    rows = (timing(16, 1, 9.0), timing(1, 1, 2.5))
    run = dataclasses.replace(
        record,
        baseline=dataclasses.replace(record.baseline, measurement=dense),
        final=dataclasses.replace(record.final, measurement=small),
        comparison=Comparison(rows, (), 1),
    )
    assert verdict(run) == (
        "On MNIST, test error goes from 0.92 % to 0.98 % (+0.06 points), with 20.0× fewer FLOPs and 3.00× fewer "
        "parameters; measured 2.50× faster (± 0.25) at batch 1, one thread."
    )


def test_verdict_does_not_flatter(record: RunRecord) -> None:
    slower = dataclasses.replace(record, comparison=Comparison((timing(1, 1, 0.5),), (), 1))
    assert "measured 2.00× slower (0.50 ± 0.25)" in verdict(slower)
    better = dataclasses.replace(slower, final=record.baseline, baseline=record.final, data=None, comparison=None)
    assert verdict(better).startswith("Test error goes from 0.98 % to 0.92 % (−0.06 points), with 13")
    assert "more FLOPs" in verdict(better) and "measured" not in verdict(better)


def test_headline_timing(record: RunRecord) -> None:
    assert headline_timing(dataclasses.replace(record, comparison=None)) is None
    only = timing(16, 4, 2.0)
    assert headline_timing(dataclasses.replace(record, comparison=Comparison((only,), (), 1))) is only
