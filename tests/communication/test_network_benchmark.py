"""The verdict says what the numbers say; rows of measured throughput are read or refused with their place."""

import json
import math
import re

import pytest

from network_cases import made_up_benchmark, made_up_probe
from spokeshave.communication.link_units import parse_bandwidth
from spokeshave.communication.network_benchmark import MeasuredThroughput, read_measured, verdict
from spokeshave.communication.performance_model import CodecCost, at_bandwidth, predict
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.errors import DataError


def test_where_they_pay_off_the_verdict_says_by_how_much_and_below_what():
    bench = made_up_benchmark()
    steps = {exchange: step.images_per_s for exchange, step in bench.predictions().items()}
    best = max(rate for exchange, rate in steps.items() if exchange.ternary)
    said = verdict(bench)
    floats, halves = (float(ratio) for ratio in re.findall(r"([\d.]+)x over", said))
    assert said.startswith("Ternary gradients pay off here: ")
    assert floats == pytest.approx(best / steps[Exchange.FLOAT32], rel=0.005)
    assert halves == pytest.approx(best / steps[Exchange.BFLOAT16], rel=0.005)
    for against, words in zip(
        (Exchange.FLOAT32, Exchange.BFLOAT16), re.findall(r"below ([\d.]+ \w+/s)", said), strict=True
    ):
        rate = parse_bandwidth(words)
        for factor, faster in ((0.97, True), (1.03, False)):
            there = at_bandwidth(bench.cluster, rate * factor)
            times = {exchange: predict(exchange, bench.profile, there).step_s for exchange in Exchange}
            assert (min(times[each] for each in Exchange if each.ternary) < times[against]) is faster


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bit_per_s": 1e11}, "Ternary gradients do not pay off here: "),
        ({"bit_per_s": 3e9}, "Ternary gradients beat fp32 here, but not bf16: "),
        ({"workers": 1}, "One worker exchanges nothing"),
        ({"codec": CodecCost(1e-3, 0.0, 0.0), "bit_per_s": 1e11}, "do not pay off here"),
        ({"codec": CodecCost(0.0, 0.0, 0.0, 1e-9)}, "They are faster than fp32 "),
    ],
)
def test_other_verdicts(change, says):
    assert says in verdict(made_up_benchmark(**change))


def test_a_codec_that_never_pays_is_said_to_never_pay():
    bench = made_up_benchmark(codec=CodecCost(1e3, 0.0, 0.0))
    assert bench.pays_below(Exchange.FLOAT32) is None and "never faster than fp32" in verdict(bench)


@pytest.mark.parametrize("probe", [None, made_up_probe()])
def test_the_record_is_json_and_whole(probe):
    bench = made_up_benchmark(probe=probe)
    record = json.loads(json.dumps(bench.to_dict(), allow_nan=False))
    assert set(record["exchanges"]) == {"fp32", "bf16", "allgather", "alltoall", "lanes"}
    row = record["exchanges"]["alltoall"]
    assert row["over_fp32"] == pytest.approx(record["exchanges"]["fp32"]["step_s"] / row["step_s"])
    assert row["faster_than_fp32"] == "below" and 1e9 < row["below_fp32_bit_per_s"] < 1e10
    assert record["measured"][1] == {
        "exchange": "alltoall", "workers": 4, "bit_per_s": 1e9, "images_per_s": 110.0,
    }  # fmt: skip
    assert (record["probe"] is None) is (probe is None) and record["verdict"] == verdict(bench)


def test_gains_are_ratios_of_throughput_and_other_numbers_of_workers_are_predicted():
    bench = made_up_benchmark()
    steps = bench.predictions(8)
    assert {step.workers for step in steps.values()} == {8}
    here = bench.predictions()
    ratio = here[Exchange.LANES].images_per_s / here[Exchange.FLOAT32].images_per_s
    assert math.isclose(bench.gain(Exchange.LANES, Exchange.FLOAT32), ratio)


@pytest.mark.parametrize("wrap", [False, True])
def test_measured_rows_are_read(tmp_path, wrap):
    rows = [{"exchange": "bf16", "workers": 2, "bit_per_s": 1e8, "images_per_s": 12.5, "note": "more is allowed"}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"measured": rows} if wrap else rows))
    assert read_measured(path) == (MeasuredThroughput(Exchange.BFLOAT16, 2, 1e8, 12.5),)


def row(workers: str = "2", bit_per_s: str = "1", images_per_s: str = "1") -> str:
    numbers = f'"workers": {workers}, "bit_per_s": {bit_per_s}, "images_per_s": {images_per_s}'
    return f'[{{"exchange": "fp32", {numbers}}}]'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "expected a JSON file"),
        ("{", "expected a JSON file"),
        ("{}", "expected a list of rows"),
        ("3", "expected a list of rows"),
        ('[{"exchange": "int8"}]', "row 0: expected an exchange of fp32, bf16"),
        ("[[1]]", "row 0: expected an exchange"),
        (row(bit_per_s="0"), "bit_per_s: expected a number above 0"),
        (row(workers="2.5"), "workers: expected a whole number"),
        (row(workers="true"), "workers: expected a number"),
        (row(images_per_s="null"), "images_per_s: expected a number"),
    ],
)
def test_rows_that_are_refused(tmp_path, text, says):
    path = tmp_path / "rows.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_measured(path)
