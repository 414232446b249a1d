"""The hook among real processes, against what the definition gives for the gradients that they have alone."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gloo_workers import WorkerFailed, run_workers
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import spokeshave as ss
from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.ternary_codes import (
    decode_factors,
    local_scalers,
    statistics_of,
    ternarize,
)
from spokeshave.communication.ternary_options import Granularity
from spokeshave.communication.ternary_packing import PlainCodec
from spokeshave.communication.ternary_wire import Wire


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(37, 91), nn.ReLU(), nn.Linear(91, 53), nn.Tanh(), nn.Linear(53, 11))


def batch(rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(8, 37, generator=generator), torch.randint(0, 11, (8,), generator=generator)


def gradients_of(model: nn.Module, rank: int, step: int) -> list[Tensor]:
    """What worker `rank` has alone."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    inputs, labels = batch(rank, step)
    nn.functional.cross_entropy(twin(inputs), labels).backward()
    return [parameter.grad if parameter.grad is not None else torch.zeros(()) for parameter in twin.parameters()]


def expected(model: nn.Module, workers: int, step: int, clip: float | None, share: bool, fewest: int) -> list[Tensor]:
    theirs = [gradients_of(model, rank, step) for rank in range(workers)]
    means = []
    for number, parameter in enumerate(model.parameters()):
        own = [gradients[number].flatten() for gradients in theirs]
        if parameter.numel() < fewest:
            total = own[0]
            for gradient in own[1:]:
                total = total + gradient
            means.append(total / workers)
            continue
        scalers = local_scalers(torch.stack([statistics_of(gradient) for gradient in own]), clip)
        used = scalers.max().expand(workers) if share else scalers
        keys = [stream_key(7, rank, step, number) for rank in range(workers)]
        clips = scalers if clip is not None else torch.full_like(scalers, math.inf)
        codes = [ternarize(own[r], used[r], keys[r], clips[r]) for r in range(workers)]
        if share:
            means.append(sum(codes[1:], codes[0]).float() * decode_factors(used, workers)[0])
        else:
            mean = codes[0] * decode_factors(used, workers)[0]
            for rank in range(1, workers):
                mean = mean + codes[rank] * decode_factors(used, workers)[rank]
            means.append(mean)
    return means


def wrapped(model: nn.Module, bucket_mb: float = 0.008, **options: Any) -> tuple[Any, ss.TernGradState]:
    ddp = DistributedDataParallel(model, bucket_cap_mb=bucket_mb)
    state = ss.TernGradState(ddp, seed=7, **options)
    ddp.register_comm_hook(state, ss.terngrad_hook)
    return ddp, state


CASES: list[dict[str, Any]] = [
    {},
    {"wire": Wire.ALLGATHER, "pack": Pack.BASE3},
    {"wire": Wire.ALLGATHER, "share_scaler": False},
    {"wire": Wire.ALLTOALL},
    {"wire": Wire.ALLTOALL, "pack": Pack.BASE3, "clip_factor": None},
    {"wire": Wire.LANES},
    {"wire": Wire.ALLTOALL, "min_numel": 0},
    {"wire": Wire.ALLTOALL, "codec": PlainCodec(), "min_numel": 10_000},
]


def compare_with_the_definition(rank: int, workers: int) -> list[float]:
    worst = []
    for case in CASES:
        model = network()
        ddp, state = wrapped(model, trial_steps=0, **case)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            means = expected(
                model, workers, step, case.get("clip_factor", 2.5), case.get("share_scaler", True), case.get("min_numel", 1024)
            )
            optimizer.zero_grad()
            inputs, labels = batch(rank, step)
            nn.functional.cross_entropy(ddp(inputs), labels).backward()
            for parameter, mean in zip(model.parameters(), means, strict=True):
                assert parameter.grad is not None
                exact = case.get("wire") is not Wire.LANES or parameter.numel() >= 1024
                found = parameter.grad.flatten()
                assert torch.equal(found, mean) if exact else torch.allclose(found, mean), (case, step, parameter.shape)
            optimizer.step()
        worst.append(float(sum(parameter.double().abs().sum() for parameter in model.parameters())))
    return worst


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_every_worker_gets_what_the_definition_gives(workers: int) -> None:
    results = run_workers(compare_with_the_definition, workers, timeout_s=240)
    assert all(result == results[0] for result in results)
