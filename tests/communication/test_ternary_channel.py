"""The channel among real processes: what it counts, that it is its own, and how long it waits."""

from datetime import timedelta
from typing import Any

import torch

from gloo_workers import run_workers
from spokeshave.communication.ternary_channel import Channel, timeout_of


def channels(rank: int, workers: int) -> dict[str, Any]:
    from torch import distributed

    world = distributed.group.WORLD
    assert world is not None
    channel, sent = Channel(world, timedelta(seconds=77)), []
    assert timeout_of(channel._group) == timedelta(seconds=77)  # type: ignore[arg-type]
    # Collectives of the training go on between those of the channel, in another order on each worker.
    other = torch.ones(1000)
    works = [distributed.all_reduce(other, async_op=True)] if rank == 0 else []
    gathered = torch.zeros(workers, 12, dtype=torch.uint8)
    channel.all_gather(gathered, torch.full((12,), rank, dtype=torch.uint8)).wait()
    sent.append(channel.bytes_sent)
    received = torch.zeros(workers, 8, dtype=torch.uint8)
    channel.all_to_all(received, torch.arange(8 * workers, dtype=torch.uint8).view(workers, 8)).wait()
    sent.append(channel.bytes_sent)
    if rank:
        works = [distributed.all_reduce(other, async_op=True)]
    total, most = torch.full((6,), float(rank)), torch.full((6,), float(rank))
    channel.all_reduce(total).wait()
    channel.all_reduce(most, largest=True).wait()
    sent.append(channel.bytes_sent)
    works[0].wait()
    return {
        "gathered": gathered[:, 0].tolist(), "received": received[:, 0].tolist(), "total": float(total[0]),
        "most": float(most[0]), "other": float(other[0]), "sent": sent, "texts": channel.agree(f"worker {rank}"),
    }  # fmt: skip


def test_bytes_are_those_of_the_collectives() -> None:
    workers = 3
    for rank, found in enumerate(run_workers(channels, workers)):
        assert found["gathered"] == [0, 1, 2] and found["received"] == [8 * rank] * workers
        assert (found["total"], found["most"], found["other"]) == (3.0, 2.0, 3.0)
        assert found["texts"] == ["worker 0", "worker 1", "worker 2"]
        # 12 bytes to each of two; 8 to each of two; twice 24 bytes around a ring of three.
        assert found["sent"] == [24, 24 + 16, 24 + 16 + 2 * 32]
