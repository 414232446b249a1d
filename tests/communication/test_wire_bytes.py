"""Bytes against the table of what each exchange saves, and against cases counted by hand."""

import itertools
import math
import os
import subprocess
import sys

import pytest

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.wire_bytes import Exchange, GradientSize, bits_of, crossing_bytes, sent_bytes
from spokeshave.errors import InvalidArgument

WORKERS = (2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 256, 512)
SAVED = {
    (Exchange.ALLGATHER, Pack.TWO_BIT): (16.0, 10.7, 8.0, 4.6, 4.0, 2.1, 2.0, 1.03, 1.0, 0.51),
    (Exchange.ALLGATHER, Pack.BASE3): (20.0, 13.3, 10.0, 5.7, 5.0, 2.7, 2.5, 1.3, 1.25, 0.63),
    (Exchange.ALLTOALL, Pack.TWO_BIT): (12.8, 12.8, 10.7, 10.7, 9.1, 9.1, 8, 8, 7.1, 7.1, 6.4, 6.4, 5.8, 5.3, 4.9),
    (Exchange.LANES, Pack.TWO_BIT): (10.7, 10.7, 8, 8, 6.4, 6.4, 5.3, 5.3, 4.6, 4.6, 4, 4, 3.6, 3.2, 2.9),
}
"""float32's bytes over those of an exchange."""
MODEL = GradientSize(1_000_000)


@pytest.mark.parametrize(("exchange", "pack"), list(SAVED))
def test_what_an_exchange_saves_over_floats(exchange, pack):
    for workers, saved in zip(WORKERS, SAVED[exchange, pack], strict=False):
        found = sent_bytes(Exchange.FLOAT32, MODEL, workers) / sent_bytes(exchange, MODEL, workers, pack)
        if exchange is Exchange.LANES:  # the table has lanes across words; those of a word leave a few bits of it
            bits = math.ceil(math.log2(2 * workers + 1))
            whole = [size / (size // bits) for size in (8, 32) if size >= bits]
            assert found == pytest.approx(32 / min(whole)) and found < saved * 1.02, workers
        else:
            assert found == pytest.approx(saved, rel=0.02), workers
        assert sent_bytes(Exchange.FLOAT32, MODEL, workers) / sent_bytes(Exchange.BFLOAT16, MODEL, workers) == 2


def test_base_of_the_sums_comes_near_to_what_levels_need():
    for workers in WORKERS:
        least = math.log2(3) + math.log2(2 * workers + 1)
        assert least <= bits_of(Exchange.ALLTOALL, workers, Pack.BASE3) < 1.12 * least, workers
        assert bits_of(Exchange.ALLTOALL, workers, Pack.BASE3) <= bits_of(Exchange.ALLTOALL, workers)


@pytest.mark.parametrize(("exchange", "last"), [(Exchange.FLOAT32, 31), (Exchange.BFLOAT16, 15)])
def test_an_all_gather_of_two_bit_codes_beats_floats_up_to_so_many_workers(exchange, last):
    wins = [n for n in range(2, 64) if sent_bytes(Exchange.ALLGATHER, MODEL, n) < sent_bytes(exchange, MODEL, n)]
    assert wins == list(range(2, last + 1))


def test_bytes_that_were_counted_on_a_wire():
    """MB that a worker sent in a step, read from the counters of a network between processes, headers included."""
    model = GradientSize(1_796_000)
    counted = {
        2: {Exchange.FLOAT32: 7.20, Exchange.BFLOAT16: 3.60, Exchange.ALLGATHER: 0.452},
        4: {Exchange.FLOAT32: 10.80, Exchange.BFLOAT16: 5.40, Exchange.ALLGATHER: 1.355, Exchange.ALLTOALL: 1.019},
    }
    for workers, row in counted.items():
        for exchange, megabytes in row.items():
            assert sent_bytes(exchange, model, workers) / 1e6 == pytest.approx(megabytes, rel=0.01)


def test_floats_and_scalers_travel_beside_the_codes():
    plain, mixed = GradientSize(1000), GradientSize(1000, floats=50, layers=3)
    for exchange in Exchange:
        more = sent_bytes(exchange, mixed, 4) - sent_bytes(exchange, plain, 4)
        scalers = 3 * 4 * 2 * 3 / 4 if exchange.ternary else 0  # an all-reduce of their maximum
        floats = {Exchange.BFLOAT16: 50 * 2 * 2 * 3 / 4, Exchange.ALLGATHER: 50 * 4 * 3}.get(
            exchange, 50 * 4 * 2 * 3 / 4
        )
        assert more == pytest.approx(floats + scalers)


SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from spokeshave.communication.terngrad import terngrad_hook
from spokeshave.communication.terngrad_state import TernGradState
from spokeshave.communication.ternary_wire import Wire
from spokeshave.processes import join_processes, leave_processes
torch.set_num_threads(1)
rank, world = join_processes()
for wire in (Wire.ALLGATHER, Wire.ALLTOALL, Wire.LANES):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(500, 800), nn.ReLU(), nn.Linear(800, 40))
    network = DistributedDataParallel(model)
    state = TernGradState(network, wire=wire)
    network.register_comm_hook(state, terngrad_hook)
    for _ in range(3):
        before = state.bytes_sent
        network(torch.randn(4, 500)).sum().backward()
    if rank == 0:
        print(wire.value, state.bytes_sent - before)
leave_processes()
"""


def test_the_hook_sends_so_many_bytes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counted = {name: int(number) for name, number in (line.split() for line in done.stdout.splitlines())}
    size = GradientSize.of([500 * 800, 800, 800 * 40, 40], min_numel=1024)
    assert size == GradientSize(432_000, 840, 2) and len(counted) == 3
    for exchange in (Exchange.ALLGATHER, Exchange.ALLTOALL, Exchange.LANES):
        wanted = sent_bytes(exchange, size, 3)
        assert wanted - 1 < counted[exchange.value] < 1.02 * wanted  # blocks that are filled up come on top


@pytest.mark.parametrize("exchange", list(Exchange))
@pytest.mark.parametrize(("machines", "devices"), [(2, 1), (2, 2), (3, 4)])
def test_bytes_over_a_machines_border_counted_message_by_message(exchange, machines, devices):
    """Every message of a ring or an all-to-all, from worker to worker, counted where it leaves machine 0."""
    workers, size = machines * devices, GradientSize(machines * devices * 840)
    bits = bits_of(exchange, workers)

    def crosses(sender: int, receiver: int) -> bool:
        return sender < devices <= receiver

    ring = [(worker, (worker + 1) % workers) for worker in range(workers)]
    passed = sum(crosses(*pair) for pair in ring) * (workers - 1)  # chunks of an all-gather, or half an all-reduce
    if exchange is Exchange.ALLTOALL:
        direct = sum(crosses(*pair) for pair in itertools.permutations(range(workers), 2))
        bits_sent = 840 * (2 * direct + (bits - 2) * passed)
    elif exchange is Exchange.ALLGATHER:
        bits_sent = size.elements * 2 * passed
    else:
        bits_sent = 840 * bits * passed
    assert crossing_bytes(exchange, size, machines, devices) == pytest.approx(bits_sent / 8)


def test_a_worker_alone_sends_nothing():
    assert {sent_bytes(exchange, GradientSize(9, 9, 1), 1) for exchange in Exchange} == {0.0}
    assert {crossing_bytes(exchange, MODEL, 1, 8) for exchange in Exchange} == {0.0}


def test_small_tensors_stay_floats():
    assert GradientSize.of([1024, 1023, 4096], 1024) == GradientSize(5120, 1023, 2)


@pytest.mark.parametrize("workers", [0, -1, 40000])
def test_numbers_of_workers_out_of_range(workers):
    with pytest.raises(InvalidArgument, match=f"got {workers}"):
        sent_bytes(Exchange.ALLTOALL, MODEL, workers)


def test_a_gradient_without_elements_is_refused():
    with pytest.raises(InvalidArgument, match="expected a gradient with elements"):
        GradientSize(0)
