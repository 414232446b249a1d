"""What every communication hook of the package promises, over all that it exports under a name that ends in _hook."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import spokeshave as ss
from gloo_workers import run_workers

HOOKS = sorted(name for name in ss.__all__ if name.endswith("_hook"))


def state_of(name: str, ddp: DistributedDataParallel, seed: int) -> Any:
    return ss.TernGradState(ddp, trial_steps=0, min_numel=1, seed=seed) if name == "terngrad_hook" else None


def kept_promises(rank: int, workers: int, name: str) -> dict[str, Any]:
    hook, means, first = getattr(ss, name), [], b""
    inputs = torch.randn(6, 40, generator=torch.Generator().manual_seed(rank))
    for seed in range(60):
        torch.manual_seed(0)
        ddp = DistributedDataParallel(nn.Linear(40, 30), bucket_cap_mb=0.001)
        ddp.register_comm_hook(state_of(name, ddp, seed), hook)
        random_state = torch.get_rng_state()
        ddp(inputs).square().mean().backward()
        assert torch.equal(torch.get_rng_state(), random_state)
        gradient = ddp.module.weight.grad
        assert gradient is not None and gradient.dtype == torch.float32
        means.append(gradient.clone())
        first = first or gradient.numpy().tobytes()
    torch.manual_seed(0)
    exact = DistributedDataParallel(nn.Linear(40, 30))
    exact(inputs).square().mean().backward()
    wanted = exact.module.weight.grad
    stack = torch.stack(means).double()
    error = (stack.mean(0) - wanted).norm() / wanted.norm()
    expected = (stack.std(0).square().sum() / len(means)).sqrt() / wanted.norm()
    # Clipping at 2.5 standard deviations shortens a gradient by a percent, bfloat16 rounds by 0.4.
    assert float(error) < 1.3 * float(expected) + 0.02, (float(error), float(expected))
    poisoned = DistributedDataParallel(nn.Linear(40, 30))
    poisoned.register_comm_hook(state_of(name, poisoned, 0), hook)
    before = poisoned.module.weight.detach().clone()
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(poisoned.parameters(), lr=0.1)
    scaler.scale(poisoned(inputs).square().mean() * (float("nan") if rank else 1.0)).backward()
    assert not torch.isfinite(poisoned.module.weight.grad).any()
    scaler.step(optimizer)
    scaler.update()
    assert (
        torch.equal(poisoned.module.weight, before) and scaler.get_scale() == 2.0**15
    )  # of 2**16: the step was skipped
    return {"bits": first, "error": float(error)}


def test_there_are_hooks() -> None:
    assert {"bfloat16_hook", "terngrad_hook"} <= set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_ddp_takes_it(name: str) -> None:
    """As a plain function with a parameter called bucket; anything else is refused or fails late."""
    hook = inspect.unwrap(getattr(ss, name))
    assert inspect.isfunction(hook)
    state, bucket = inspect.signature(hook).parameters.values()
    assert (state.name, bucket.name) == ("state", "bucket")
    assert bucket.annotation is torch.distributed.GradBucket and not isinstance(bucket.annotation, str)
    assert inspect.signature(hook).return_annotation == torch.futures.Future[torch.Tensor]


@pytest.mark.parametrize("name", HOOKS)
def test_workers_get_the_same_bits_near_the_mean_and_see_what_is_not_finite(name: str) -> None:
    first, second = run_workers(kept_promises, 2, name)
    assert first == second
