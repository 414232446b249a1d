"""The hook among real processes, against what the definition gives for the gradients that they have alone."""

import copy
import math
import os
import pickle
import re
import signal
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import spokeshave as ss
from gloo_workers import WorkerFailed, run_workers
from spokeshave import errors as ss_errors
from spokeshave.communication import ternary_wire
from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.ternary_codes import (
    Deviation,
    decode_factors,
    local_scalers,
    statistics_of,
    ternarize,
)
from spokeshave.communication.ternary_options import Granularity
from spokeshave.communication.ternary_packing import TernaryCodec
from spokeshave.communication.ternary_wire import Wire
from spokeshave.communication.terngrad import exchange_failure


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


def expected(
    model: nn.Module, workers: int, step: int, clip: float | None, share: bool, fewest: int, about: Deviation
) -> list[Tensor]:
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
        scalers = local_scalers(torch.stack([statistics_of(gradient) for gradient in own]), clip, about)
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
    {"wire": Wire.ALLTOALL, "codec": TernaryCodec(), "deviation": Deviation.ABOUT_MEAN, "clip_factor": 1.5},
    {"wire": Wire.ALLTOALL, "deviation": Deviation.ABOUT_MEAN, "clip_factor": 1.5, "piece": 1024},
    {"min_numel": 10_000},
]


def compare_with_the_definition(rank: int, workers: int) -> list[float]:
    worst = []
    for case in CASES:
        model = network()
        case = dict(case)
        ternary_wire.PIECE = case.pop("piece", 1 << 21)  # buckets are then cut within layers
        ddp, _ = wrapped(model, trial_steps=0, **case)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            means = expected(
                model,
                workers,
                step,
                case.get("clip_factor", 2.5),
                case.get("share_scaler", True),
                case.get("min_numel", 1024),
                case.get("deviation", Deviation.ABOUT_ZERO),
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


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_worker_gets_what_the_definition_gives(workers: int) -> None:
    results = run_workers(compare_with_the_definition, workers, timeout_s=240)
    assert all(result == results[0] for result in results)


def step_of(ddp: Any, rank: int, step: int) -> None:
    inputs, labels = batch(rank, step)
    kind = next(ddp.parameters()).dtype
    nn.functional.cross_entropy(ddp(inputs.to(kind)).float(), labels).backward()


def gradient_bytes(model: nn.Module) -> list[bytes]:
    return [p.grad.float().numpy().tobytes() if p.grad is not None else b"" for p in model.parameters()]


def ways_to_train(rank: int, workers: int) -> dict[str, Any]:
    """Many ways to use DDP; what each leaves in `.grad`."""
    found: dict[str, Any] = {}
    options = {"trial_steps": 0}

    # Accumulation: the hook sees the sum of both passes once.
    model = network()
    ddp, state = wrapped(model, **options)
    with ddp.no_sync():
        step_of(ddp, rank, 0)
    assert state.bytes_sent == 0 and state.step == 0
    step_of(ddp, rank, 1)
    assert state.step == 1
    twin = network()
    plain = DistributedDataParallel(twin)
    with plain.no_sync():
        step_of(plain, rank, 0)
    step_of(plain, rank, 1)
    found["accumulated"] = gradient_bytes(model)
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    near = [one.grad.flatten() @ other.grad.flatten() for one, other in pairs]
    assert all(value > 0 for value in near)
    assert torch.equal(twin[0].bias.grad, model[0].bias.grad)  # too small for codes: exact

    # bfloat16 parameters, whose scalers are computed in float32.
    model = network().bfloat16()
    ddp, state = wrapped(model, **options)
    step_of(ddp, rank, 0)
    assert len(model[0].weight.grad.float().unique()) <= 2 * workers + 1
    found["bfloat16"] = gradient_bytes(model)

    # Parameters that nobody used, and a graph that never changes.
    for more in ({"find_unused_parameters": True}, {"static_graph": True}, {"gradient_as_bucket_view": True}):
        model = network()
        run = Unused(model) if "find_unused_parameters" in more else model
        ddp = DistributedDataParallel(run, bucket_cap_mb=0.008, **more)
        state = ss.TernGradState(ddp, **options)
        ddp.register_comm_hook(state, ss.terngrad_hook)
        for step in range(3):
            ddp.zero_grad()
            step_of(ddp, rank, step)
        found[str(more)] = gradient_bytes(run)

    # What is not a number stays visible on every worker, whoever had it.
    for poison in (math.nan, math.inf):
        for case in ({}, {"wire": Wire.ALLTOALL}, {"wire": Wire.LANES}, {"share_scaler": False}, {"clip_factor": None}):
            model = network()
            ddp, _ = wrapped(model, **options, **case)
            if rank == 1:
                model[2].weight.register_hook(partial(torch.full_like, fill_value=poison))
            step_of(ddp, rank, 0)
            assert not torch.isfinite(model[2].weight.grad).all(), case
            assert torch.isfinite(model[0].weight.grad).all(), case

    # Zero gradients, one element, nothing at all.
    model = Odd()
    for wire in (Wire.ALLGATHER, Wire.ALLTOALL, Wire.LANES):
        ddp, state = wrapped(model, **options, wire=wire, min_numel=0, clip_factor=None)
        ddp.zero_grad()
        (ddp(torch.ones(2)) * (1.0 + rank)).backward()
        assert float(model.one.grad) in (4.0, 8.0)  # 4 and 8: of the smaller one comes half the larger one, or nothing
        assert torch.equal(model.still.grad, torch.zeros(77))
        found[str(wire)] = gradient_bytes(model)
    return found


class Unused(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner[:5](inputs)


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))
        self.none = nn.Parameter(torch.ones(0))
        self.still = nn.Parameter(torch.ones(77))
        self.prime = nn.Parameter(torch.ones(1009))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.sum() * (self.one.sum() * 2 + self.none.sum() + 0 * self.still.sum() + self.prime.sum() / 1009)


def test_the_ways_to_train_give_every_worker_the_same_bits() -> None:
    first, second = run_workers(ways_to_train, 2, timeout_s=240)
    assert set(first) == set(second)
    assert not [name for name in first if first[name] != second[name]]


def compiled_ways(rank: int, workers: int) -> list[list[bytes]]:
    found = []
    for mode in ("ddp_optimizer", "no_optimization", None):
        torch._dynamo.reset()
        torch._dynamo.config.optimize_ddp = mode or "ddp_optimizer"
        model = network()
        ddp, state = wrapped(model, bucket_mb=1, trial_steps=0)
        run = ddp if mode is None else torch.compile(ddp, backend="aot_eager")
        for step in range(2):
            ddp.zero_grad()
            step_of(run, rank, step)
        assert state.step == 2
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for compiled in found[:2]:  # gradients of compiled code may differ in their last bits, and so may draws
        same = [float((one == other).float().mean()) for one, other in zip(compiled, found[2], strict=True)]
        assert min(same) > 0.95, same
    refused = "nothing"
    try:
        ss.terngrad_hook(state, (model[0].weight.grad, model[0].weight))
    except ss_errors.InvalidArgument as error:
        refused = str(error)
    assert "python_reducer" in refused and "ddp_optimizer" in refused
    return [[gradient.numpy().tobytes() for gradient in compiled] for compiled in found]


def test_compiled_networks_call_the_hook() -> None:
    first, second = run_workers(compiled_ways, 2, timeout_s=240)
    assert first == second


def killed_in_the_middle(rank: int, workers: int) -> None:
    model = network()
    ddp, _ = wrapped(model, wire=Wire.ALLTOALL, timeout=timedelta(seconds=20))
    step_of(ddp, rank, 0)
    if rank == 1:
        model[2].weight.register_hook(lambda gradient: os.kill(os.getpid(), signal.SIGKILL))
    for step in range(1, 4):
        step_of(ddp, rank, step)


def test_a_killed_worker_ends_the_others_with_a_clear_error() -> None:
    with pytest.raises(WorkerFailed) as failure:
        run_workers(killed_in_the_middle, 3, timeout_s=100, grace_s=60)
    said = str(failure.value)
    assert "worker 1 of 3 died with exit status -9" in said
    for rank in (0, 2):
        assert re.search(rf"terngrad_hook: bucket \d of step 1 could not be exchanged on worker {rank} of 3", said), (
            said
        )
    assert "start all of them again from the last checkpoint" in said


def states(rank: int, workers: int) -> list[bytes]:
    # A hundred steps, the last forty after a resume: the same bits as without one.
    finals = []
    for resumed in (False, True):
        model = network()
        ddp, state = wrapped(model, trial_steps=0, error_feedback=True, zeros_every=10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        for step in range(100):
            if resumed and step == 60:
                kept = pickle.loads(pickle.dumps(state.state_dict()))
                model = copy.deepcopy(model)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
                ddp, state = wrapped(model, trial_steps=0, error_feedback=True, zeros_every=10)
                state.load_state_dict(kept)
            optimizer.zero_grad()
            step_of(ddp, rank, step)
            optimizer.step()
        finals.append(b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters()))
        # Each worker keeps what its own codes left out.
        assert len(state.state_dict()["residuals"]) == 2
        stats = state.compression_stats()
        assert stats["steps"] == 100 and stats["wire"] == "allgather"
        assert stats["float_bytes"] == 100 * 4 * sum(p.numel() for p in model.parameters())
        assert 0 < stats["bytes_sent"] < stats["float_bytes"] and set(stats["zero_codes"]) == {"0.weight", "2.weight"}
        assert all(0.3 < share < 1 for share in stats["zero_codes"].values())
    assert finals[0] == finals[1]

    # A state that was pickled whole goes on once it is bound again.
    copied = pickle.loads(pickle.dumps(state))
    model = network()
    ddp = DistributedDataParallel(model)
    ddp.register_comm_hook(copied, ss.terngrad_hook)
    with pytest.raises(ss_errors.InvalidArgument, match="bind"):
        step_of(ddp, rank, 0)
    ddp = DistributedDataParallel(model)
    copied.bind(ddp)
    ddp.register_comm_hook(copied, ss.terngrad_hook)
    step_of(ddp, rank, 0)
    assert copied.step == 101 and copied.bytes_sent > stats["bytes_sent"]

    for wrong in ({"seed": rank}, {"pack": Pack.BASE3 if rank else Pack.TWO_BIT}):
        with pytest.raises(ss_errors.InvalidArgument, match="options differ"):
            ss.TernGradState(model, **wrong)
    with pytest.raises(ss_errors.InvalidArgument, match="ALLGATHER"):
        ss.TernGradState(model, share_scaler=False, wire=Wire.ALLTOALL)
    with pytest.raises(ss_errors.CheckpointError, match="seed"):
        state.load_state_dict(state.state_dict() | {"seed": 3})
    with pytest.raises(ss_errors.CheckpointError, match="residuals"):
        state.load_state_dict({"step": 3, "seed": 7, "bytes_sent": 0, "trial": {}})
    ddp, _ = wrapped(network().double())
    with pytest.raises(ss_errors.InvalidArgument, match="float64"):
        step_of(ddp, rank, 0)

    # AUTO finds out that floats are faster where nothing limits the link and codes take long.
    model = network()
    ddp, state = wrapped(model, codec=SlowCodec())
    for step in range(16):
        ddp.zero_grad()
        step_of(ddp, rank, step)
    verdict = state.verdict
    assert verdict is not None and "floats are sent" in verdict, verdict
    means = [torch.stack(both).mean(0) for both in zip(*(gradients_of(model, r, 15) for r in (0, 1)), strict=True)]
    assert all(torch.allclose(p.grad, mean, atol=1e-6) for p, mean in zip(model.parameters(), means, strict=True))
    _, again = wrapped(network())
    again.load_state_dict(state.state_dict())
    assert again.verdict == verdict
    _, fewer = wrapped(network())
    fewer.load_state_dict(state.state_dict() | {"workers": 7})
    assert fewer.verdict is None and fewer.step == state.step
    return finals


class SlowCodec(TernaryCodec):
    def encode(self, *arguments: Any) -> None:
        time.sleep(0.05)
        super().encode(*arguments)


def test_states_resume_pickle_and_decide() -> None:
    first, second = run_workers(states, 2, timeout_s=240)
    assert first == second


def granular(rank: int, workers: int) -> list[list[float]]:
    levels = []
    for granularity in Granularity:
        model = network()
        ddp, _ = wrapped(model, bucket_mb=1, trial_steps=0, granularity=granularity)
        step_of(ddp, rank, 0)
        levels.append([float(model[layer].weight.grad.abs().max()) for layer in (0, 2)])
    return levels


def who_hangs_and_who_differs(rank: int, workers: int) -> int:
    from torch import distributed

    # Workers that know of different numbers of groups, as with a group for the first one's own purposes.
    distributed.new_group([0], use_local_synchronization=True) if rank == 0 else None
    model = network()
    ddp, state = wrapped(model, start_iter=2, skip=["0"], skip_last_layer=True, timeout=timedelta(seconds=4))
    for step in range(3):
        exact = [
            torch.stack(both).mean(0) for both in zip(*(gradients_of(model, r, step) for r in (0, 1)), strict=True)
        ]
        ddp.zero_grad()
        step_of(ddp, rank, step)
        for (name, parameter), mean in zip(model.named_parameters(), exact, strict=True):
            near = torch.allclose(parameter.grad, mean, atol=1e-6)
            assert near == (step < 2 or name != "2.weight"), (step, name)
    for wrong in ({"trial_steps": 12 * rank}, {"min_numel": 1 + 5000 * rank}):
        with pytest.raises(ss_errors.InvalidArgument, match="options differ"):
            ss.TernGradState(model, **wrong)

    with pytest.raises(ss_errors.InvalidArgument, match="skip must hold names"):
        ss.TernGradState(model, skip="0")  # one name, not its letters

    # A state is worth the same without its model, and what was loaded is nobody else's memory.
    copied = pickle.loads(pickle.dumps(state))
    assert copied.bytes_sent == state.bytes_sent and copied.state_dict() == state.state_dict() | {"workers": 0}
    with pytest.raises(ss_errors.InvalidArgument, match="bind"):
        copied.compression_stats()
    sent = state.bytes_sent
    state.bind(ddp, timeout=timedelta(seconds=4))
    assert state.bytes_sent == sent > 0
    _, echo = wrapped(network(), error_feedback=True)
    kept = {
        "step": 3,
        "bytes_sent": 9,
        "seed": 7,
        "trial": echo.state_dict()["trial"],
        "residuals": {"a": torch.ones(2)},
    }
    echo.load_state_dict(kept)
    kept["residuals"]["a"].zero_()
    assert float(echo.state_dict()["residuals"]["a"].sum()) == 2 and echo.bytes_sent == 9

    # Checkpoints of different steps: nobody would meet.
    _, early = wrapped(network())
    other, late = wrapped(network())
    early.step = 5 + rank
    late.load_state_dict(early.state_dict())
    with pytest.raises(ss_errors.InvalidArgument, match="checkpoints differ: step 5"):
        step_of(other, rank, 0)

    told_of = 0
    for floats in (0, 50):  # in codes, and in floats
        other, _ = wrapped(network(), start_iter=floats, timeout=timedelta(seconds=4))
        if rank == 1:
            continue
        begun = time.monotonic()
        with pytest.raises(RuntimeError, match="terngrad_hook: bucket 0 of step 0 could not be exchanged") as failure:
            step_of(other, rank, 0)
        assert time.monotonic() - begun < 30
        told = exchange_failure(failure.value)
        assert told is not None and str(told).endswith("start all of them again from the last checkpoint")
        told_of += 1
    return told_of


def test_workers_that_hang_or_differ_are_told_of() -> None:
    assert run_workers(who_hangs_and_who_differs, 2, timeout_s=200) == [2, 0]  # the second one is it that hangs


def test_layers_of_a_bucket_share_a_scaler_where_asked() -> None:
    (layer, bucket), other = run_workers(granular, 2)
    assert other == [layer, bucket]
    multiples = [bucket[0] / bucket[1], layer[0] / layer[1]]  # s or s / 2: of one scaler a ratio of 1, 2 or 1/2
    assert min(abs(multiples[0] - power) for power in (0.5, 1, 2)) < 1e-6
    assert min(abs(multiples[1] - power) for power in (0.5, 1, 2)) > 1e-3
