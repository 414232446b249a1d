"""Fits against links that are known, and a probe of three real processes: the same numbers in each, all leave."""

import json
import os
import random
import subprocess
import sys

import pytest

from gloo_workers import run_workers
from spokeshave.communication.link_probe import (
    SIZES,
    CollectiveTime,
    LinkProbe,
    fit_link,
    passing_bytes,
    probe_links,
    summary,
)
from spokeshave.communication.performance_model import Collective, Layout, Link, Order, messages
from spokeshave.errors import InvalidArgument

SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from spokeshave.communication.link_probe import probe_links, summary
from spokeshave.processes import join_processes, leave_processes
rank, world = join_processes()
found = probe_links(sizes=(256, 1 << 18), rounds=3)
assert found.link is not None and len(found.times) == 6
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump([found.link.bit_per_s, found.link.latency_s, found.misfit, found.layout.machines, found.layout.devices,
               found.order.value, [each.seconds for each in found.times], summary(found)], file)
leave_processes()
"""


def made_up(link: Link, workers: int, noise: float = 0.0) -> list[CollectiveTime]:
    draw = random.Random(5)
    times = []
    for size in SIZES:
        for collective in Collective:
            passing, followed = passing_bytes(collective, size, Layout(workers)), messages(collective, workers)
            seconds = followed * link.latency_s + 8 * passing / link.bit_per_s
            times.append(CollectiveTime(collective, size, passing, followed, seconds * (1 + noise * draw.random())))
    return times


@pytest.mark.parametrize("workers", [2, 5, 16])
@pytest.mark.parametrize("link", [Link(1e8, 5e-5), Link(1e9, 2e-3), Link(2e10, 1e-6)])
def test_a_link_is_found_again(link, workers):
    found, misfit = fit_link(made_up(link, workers))
    assert found.bit_per_s == pytest.approx(link.bit_per_s, rel=1e-3) and misfit < 1e-3
    assert found.latency_s == pytest.approx(link.latency_s, rel=1e-2)


def test_two_wild_times_move_little():
    link = Link(1e9, 1e-4)
    times = made_up(link, 4, noise=0.05)
    for place, factor in ((2, 30.0), (13, 8.0)):
        wild = times[place]
        times[place] = CollectiveTime(wild.collective, 1, wild.passing, wild.messages, wild.seconds * factor)
    found, _ = fit_link(times)
    assert found.bit_per_s == pytest.approx(1e9, rel=0.08) and found.latency_s == pytest.approx(1e-4, rel=0.08)


def test_bytes_that_pass_a_link():
    assert [passing_bytes(each, 800, Layout(1, 4)) for each in Collective] == [1200, 2400, 600]
    assert [passing_bytes(each, 800, Layout(4)) for each in Collective] == [1200, 2400, 600]
    assert passing_bytes(Collective.ALL_TO_ALL, 800, Layout(2, 2)) == 2 * 2 * 200


def test_alone_there_is_no_link():
    found = probe_links()
    assert found == LinkProbe(Layout(1), "", Order.RING) and "no link" in summary(found)


@pytest.mark.parametrize(("sizes", "rounds"), [((), 3), ((0,), 3), ((8,), 0)])
def test_nothing_to_measure(sizes, rounds):
    with pytest.raises(InvalidArgument, match="at least 1 byte"):
        probe_links(sizes, rounds)


def test_three_processes_measure_the_same(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3))
    assert others == [first, first]
    bit_per_s, latency_s, _, machines, devices, order, seconds, said = first
    assert (machines, devices, order) == (1, 3, "ring") and min(bit_per_s, latency_s, *seconds) > 0
    assert said.startswith("3 processes over gloo: ")


def layouts_of(rank: int, workers: int, cases: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    layouts = []
    for here in cases:
        os.environ["LOCAL_WORLD_SIZE"] = str(here[rank])
        layout = probe_links(sizes=(256,), rounds=1).layout
        layouts.append((layout.machines, layout.devices))
    return layouts


def test_machines_of_different_numbers_of_processes_are_seen_alike():
    found = run_workers(layouts_of, 4, [(1, 1, 2, 2), (2, 2, 2, 2), (4, 4, 4, 4)])
    assert found == [[(4, 1), (2, 2), (1, 4)]] * 4
