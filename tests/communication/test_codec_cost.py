"""Costs are there for every part; how long they are is not tested."""

import pytest

from spokeshave.communication.codec_cost import measure_codec
from spokeshave.communication.digit_packing import Pack
from spokeshave.errors import InvalidArgument


@pytest.mark.parametrize("pack", list(Pack))
def test_every_part_takes_time_and_nothing_is_said_to_overlap(pack):
    cost = measure_codec(3, pack, elements=5000, rounds=2, threads=1)
    assert min(cost.encode_s, cost.sum_s, cost.decode_s, cost.bfloat16_s) > 0 and cost.overlapped == 0


@pytest.mark.parametrize(("workers", "elements", "rounds"), [(2, 0, 1), (2, 10, 0), (0, 10, 1), (40000, 10, 1)])
def test_numbers_out_of_range(workers, elements, rounds):
    with pytest.raises(InvalidArgument, match="expected"):
        measure_codec(workers, elements=elements, rounds=rounds)
