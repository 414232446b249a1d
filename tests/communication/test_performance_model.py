"""The step's formula against hand-computed cases, and break-evens against a search over bandwidths."""

import math

import pytest

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.performance_model import (
    Cluster,
    CodecCost,
    Collective,
    Layout,
    Link,
    Order,
    StepProfile,
    at_bandwidth,
    at_workers,
    best_ternary,
    break_even_bit_per_s,
    messages,
    predict,
    rounds,
)
from spokeshave.communication.wire_bytes import Exchange, GradientSize
from spokeshave.errors import InvalidArgument

PROFILE = StepProfile(0.010, 0.030, 0.004, images=16, size=GradientSize(8_000_000, 1000, 5), buckets=3)
CODEC = CodecCost(encode_s=1e-9, sum_s=0.15e-9, decode_s=0.05e-9, bfloat16_s=0.5e-9)
CLUSTER = Cluster(Layout(4), Link(1e9, 50e-6), CODEC)


def test_floats_by_hand():
    # 2 * 3/4 * 8,001,000 floats at 1 Gbit/s; three buckets of 2 * 3 messages.
    communication = 1.5 * 8_001_000 * 32 / 1e9 + 3 * 6 * 50e-6
    step = predict(Exchange.FLOAT32, PROFILE, CLUSTER)
    assert step.communication_s == pytest.approx(communication)
    assert step.step_s == pytest.approx(0.010 + 0.004 + communication) and step.codec_s == 0
    assert step.images_per_s == pytest.approx(64 / step.step_s)


def test_an_all_to_all_by_hand():
    # Codes of 2 bits, sums of 4 (nine levels), scalers of 5 layers all-reduced; 1000 floats beside codes and sums.
    sent = 0.75 * (8_000_000 * 6 / 8 + 5 * 8 + 1000 * 8)
    followed = 6 + 1 + 3
    step = predict(Exchange.ALLTOALL, PROFILE, CLUSTER)
    assert step.bytes_sent == pytest.approx(sent)
    assert step.communication_s == pytest.approx(sent * 8 / 1e9 + 3 * followed * 50e-6)
    assert step.codec_s == pytest.approx(8_000_000 * 1.2e-9)
    assert step.step_s == pytest.approx(0.010 + 0.004 + step.communication_s + step.codec_s)


def test_communication_hides_behind_the_backward_pass_and_a_codec_where_it_overlaps():
    quick = at_bandwidth(CLUSTER, 1e12)
    assert predict(Exchange.FLOAT32, PROFILE, quick).step_s == pytest.approx(0.040)
    assert predict(Exchange.BFLOAT16, PROFILE, quick).step_s == pytest.approx(0.040 + 8_001_000 * 0.5e-9)
    hidden = Cluster(Layout(4), Link(1e12), CodecCost(1e-9, 0.0, 0.1e-9, overlapped=0.75))
    step = predict(Exchange.LANES, PROFILE, hidden)
    assert step.step_s == pytest.approx(0.040 + 0.25 * 8_000_000 * 1.1e-9)


def test_a_worker_alone_computes_only():
    for exchange in Exchange:
        step = predict(exchange, PROFILE, at_workers(CLUSTER, 1))
        assert (step.bytes_sent, step.communication_s, step.codec_s) == (0, 0, 0)
        assert step.step_s == pytest.approx(0.040)


def test_several_devices_of_a_machine_share_its_link():
    flat = Cluster(Layout(8), Link(1e9), CODEC)
    shared = Cluster(Layout(2, 4), Link(1e9), CODEC)
    for exchange in (Exchange.FLOAT32, Exchange.ALLGATHER, Exchange.LANES):
        assert predict(exchange, PROFILE, shared).step_s == predict(exchange, PROFILE, flat).step_s
    more = predict(Exchange.ALLTOALL, PROFILE, shared).communication_s
    # Sixteen chunks of codes leave a machine, not a worker's seven.
    chunk = (8_000_000 * 2 + 1000 * 32) / 8 / 1e9
    assert more - predict(Exchange.ALLTOALL, PROFILE, flat).communication_s == pytest.approx(9 * chunk)
    assert predict(Exchange.FLOAT32, PROFILE, Cluster(Layout(1, 8), Link(1e9), CODEC)) == predict(
        Exchange.FLOAT32, PROFILE, flat
    )


def test_rounds_and_messages():
    assert {exchange.name: len(rounds(exchange)) for exchange in Exchange} == {
        "FLOAT32": 1, "BFLOAT16": 1, "ALLGATHER": 2, "ALLTOALL": 3, "LANES": 2,
    }  # fmt: skip
    assert len(rounds(Exchange.LANES, floats=True)) == 3 and len(rounds(Exchange.ALLGATHER, floats=True)) == 2
    assert [messages(each, 9, Order.TREE) for each in Collective] == [8, 4, 1]
    assert {messages(each, 1, order) for each in Collective for order in Order} == {0}


@pytest.mark.parametrize("exchange", [exchange for exchange in Exchange if exchange.ternary])
@pytest.mark.parametrize("against", [Exchange.FLOAT32, Exchange.BFLOAT16])
@pytest.mark.parametrize("workers", [2, 4, 24])
def test_break_even_is_where_a_search_finds_it(exchange, against, workers):
    cluster = at_workers(CLUSTER, workers)
    found = break_even_bit_per_s(exchange, against, PROFILE, cluster)
    rates = [10 ** (power / 50) for power in range(150, 650)]
    faster = [
        rate
        for rate in rates
        if predict(exchange, PROFILE, at_bandwidth(cluster, rate)).step_s
        < predict(against, PROFILE, at_bandwidth(cluster, rate)).step_s
    ]
    if found is None:
        assert faster == []
    else:
        assert faster == [rate for rate in rates if rate < found] and 1e3 < found < 1e13


def test_break_even_of_a_codec_that_costs_nothing_and_of_one_that_never_pays():
    free = Cluster(Layout(2), Link(1e9), CodecCost(0.0, 0.0, 0.0))
    bare = StepProfile(0.0, 0.0, 0.0, 1, GradientSize(1000))
    assert break_even_bit_per_s(Exchange.ALLGATHER, Exchange.FLOAT32, bare, free) == math.inf
    many = Cluster(Layout(40), Link(1e9), CodecCost(0.0, 0.0, 0.0))
    assert break_even_bit_per_s(Exchange.ALLGATHER, Exchange.FLOAT32, bare, many) is None


def test_the_best_exchange_is_the_fastest():
    two, many = at_workers(CLUSTER, 2), at_workers(CLUSTER, 64)
    assert best_ternary(PROFILE, at_bandwidth(two, 1e8)).exchange is Exchange.ALLGATHER
    assert best_ternary(PROFILE, at_bandwidth(many, 1e7)).exchange is Exchange.ALLTOALL


def test_base_3_sends_less():
    packed = Cluster(Layout(2), Link(1e8), CODEC, Pack.BASE3)
    assert (
        predict(Exchange.ALLGATHER, PROFILE, packed).step_s
        < predict(Exchange.ALLGATHER, PROFILE, at_bandwidth(at_workers(CLUSTER, 2), 1e8)).step_s
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Link(0.0), "above 0 bit/s"),
        (lambda: Link(1e9, -1.0), "at least 0 s"),
        (lambda: Link(math.nan), "above 0 bit/s"),
        (lambda: Layout(0), "at least one machine"),
        (lambda: StepProfile(1.0, 1.0, 2.0, 1, GradientSize(1)), "within backward's"),
        (lambda: StepProfile(1.0, 1.0, 0.0, 0, GradientSize(1)), "at least one image"),
        (lambda: CodecCost(-1.0, 0.0, 0.0), "at least 0 s"),
        (lambda: CodecCost(0.0, 0.0, 0.0, overlapped=1.5), "0..1 overlap"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(InvalidArgument, match=says):
        make()
