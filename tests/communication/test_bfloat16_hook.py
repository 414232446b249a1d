from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from gloo_workers import run_workers
from spokeshave.communication.bfloat16_hook import bfloat16_hook
from spokeshave.errors import InvalidArgument

SIZES = (1000, 3001, 1, 777, 5000, 257)
STEPS = 3


class Products(nn.Module):
    """Its gradients are its inputs, so that a test can say what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in SIZES)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return sum((weight * part).sum() for weight, part in zip(self.weights, inputs, strict=True))  # pyright: ignore


def inputs(rank: int, step: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [(torch.randn(size, generator=generator) * 10.0 ** (rank - step)).to(dtype) for size in SIZES]


def in_one(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.detach().clone() for part in parts])


def gradients(network: nn.Module) -> Tensor:
    return in_one([weight.grad for weight in network.parameters() if weight.grad is not None])


def counted(counts: list[int]) -> Any:
    """The hook, which notes the bucket's number, and fails where the result is not in the bucket's memory."""

    def hook(state: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        counts.append(bucket.index())
        before = bucket.buffer().data_ptr()
        future = bfloat16_hook(state, bucket)
        return future.then(lambda done: done.value() if done.value().data_ptr() == before else None)

    return hook


def averaged(rank: int, workers: int) -> dict[str, Any]:
    """Gradients of every case, by its name."""
    found: dict[str, Any] = {}
    for view in (False, True):
        counts: list[int] = []
        network = DistributedDataParallel(Products(), bucket_cap_mb=0.01, gradient_as_bucket_view=view)  # pyright: ignore
        network.register_comm_hook(None, counted(counts))
        for step in range(STEPS):
            network.zero_grad()
            network(inputs(rank, step)).backward()
            found[f"step {step}, view {view}"] = gradients(network)
        found["buckets"] = max(counts) + 1
        calls = len(counts)
        network.zero_grad()
        with network.no_sync():
            network(inputs(rank, 4)).backward()
        found["calls without sync"] = len(counts) - calls
        network(inputs(rank, 5)).backward()
        found[f"accumulated, view {view}"] = gradients(network)
    network = DistributedDataParallel(Products().bfloat16())
    network.register_comm_hook(distributed.new_group(), bfloat16_hook)
    network(inputs(rank, 0, torch.bfloat16)).backward()
    found["bfloat16"] = gradients(network)
    network = DistributedDataParallel(Products())
    network.register_comm_hook(None, bfloat16_hook)
    given = inputs(rank, 0)
    if rank == 1:
        given[0][3], given[1][4] = torch.nan, torch.inf
    network(given).backward()
    found["not finite"] = gradients(network)
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return run_workers(averaged, 2)


def rounded(values: np.ndarray) -> np.ndarray:
    """To bfloat16, halves to even, by the bits of a float32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def mean_in_bfloat16(first: Tensor, second: Tensor) -> Tensor:
    return torch.from_numpy(rounded(rounded(first.numpy() / 2) + rounded(second.numpy() / 2)))


@pytest.mark.parametrize("view", [False, True])
def test_gradients_are_the_mean_in_bfloat16_to_the_bit(found: list[dict[str, Any]], view: bool) -> None:
    for step in range(STEPS):
        wanted = mean_in_bfloat16(in_one(inputs(0, step)), in_one(inputs(1, step)))
        assert all(torch.equal(rank[f"step {step}, view {view}"], wanted) for rank in found)
    assert found[0]["buckets"] >= 3


@pytest.mark.parametrize("view", [False, True])
def test_without_sync_nothing_is_sent_and_the_sum_later(found: list[dict[str, Any]], view: bool) -> None:
    first, second = (in_one(inputs(rank, 4)) + in_one(inputs(rank, 5)) for rank in range(2))
    for rank in found:
        assert rank["calls without sync"] == 0
        assert torch.equal(rank[f"accumulated, view {view}"], mean_in_bfloat16(first, second))


def test_bfloat16_gradients_travel_as_they_are(found: list[dict[str, Any]]) -> None:
    first, second = (in_one(inputs(rank, 0, torch.bfloat16)).float() for rank in range(2))
    for rank in found:
        assert rank["bfloat16"].dtype == torch.bfloat16
        assert torch.equal(rank["bfloat16"].float(), mean_in_bfloat16(first, second))


def test_what_is_not_finite_is_seen_by_every_worker(found: list[dict[str, Any]]) -> None:
    for rank in found:
        broken = torch.nonzero(~rank["not finite"].isfinite()).flatten().tolist()
        assert broken == [3, SIZES[0] + 4]
        assert rank["not finite"][3].isnan() and rank["not finite"][SIZES[0] + 4] == torch.inf


class Bucket:
    """What DDP would hand over for complex parameters."""

    def buffer(self) -> Tensor:
        return torch.zeros(2, dtype=torch.complex64)


def test_what_it_cannot_average_is_refused() -> None:
    unchecked: Any = getattr(bfloat16_hook, "__wrapped__", bfloat16_hook)
    with pytest.raises(InvalidArgument, match="python_reducer"):
        unchecked(None, (torch.zeros(2), torch.zeros(2)))
    with pytest.raises(InvalidArgument, match="complex64"):
        unchecked(None, Bucket())
