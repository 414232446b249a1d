"""TernGrad as a hook of DistributedDataParallel: gradients travel as ternary codes, packed, in both directions.

TernGrad, Wen et al., NIPS 2017, algorithm 1, whose steps are numbered in the code below:
    worker  1. gradient  2. clip  3. share the scaler s = max_i s_i  4. ternarize  5. push codes
    server  6. average   worker  7. pull, and step its own copy of the parameters with the average
Departs from the paper: no server of its own (`ternary_wire`); averages come back exact, in log2(2N+1) bits; steps 1 and
2 use `Deviation.ABOUT_ZERO` by default; small tensors travel as floats (`ternary_options`); AUTO may decide for floats.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.futures import Future

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.ternary_codes import Deviation, joint_statistics, local_scalers
from spokeshave.communication.ternary_options import Granularity
from spokeshave.communication.ternary_wire import Bucket
from spokeshave.communication.terngrad_state import TernGradState
from spokeshave.errors import ExchangeFailed, InvalidArgument


def terngrad_hook(state: TernGradState, bucket: distributed.GradBucket) -> Future[Tensor]:
    """Average a bucket of gradients over the workers by ternary codes; every worker gets the same bits.

    Args:
        state: of this worker.
        bucket: what DDP hands over, of float32, bfloat16 or float16 gradients.

    Returns:
        A future of the averaged gradients, in the bucket's own memory.

    Raises:
        InvalidArgument: for other types, where the state is not bound to the model, and where `torch.compile` with
            `optimize_ddp="python_reducer"` calls it.
        ExchangeFailed: a worker ended or hung. Through the future DDP hands it on as the text of a RuntimeError, which
            `exchange_failure` turns back.
    """
    _require_usable(state, bucket)
    step, last, buffer = state.step, bucket.is_last(), bucket.buffer()
    gradients, known = bucket.gradients(), [_known(state, parameter) for parameter in bucket.parameters()]
    where = f"bucket {bucket.index()} of step {step}"
    try:
        if state._unsettled:
            state._agree(f"checkpoints differ: step {step}, {state._trial.state_dict()}")
            state._unsettled = False
        floats = step < state.start_iter or state._trial.sends_floats(step, state._channel, buffer.device)
    except RuntimeError as error:
        raise _failed(state, where, error) from error
    if last:
        state.step = step + 1
    if floats:
        return _average_floats(state, step, last, buffer, where)

    def job() -> Tensor:
        try:
            _average(state, step, buffer, gradients, known)
        except RuntimeError as error:
            raise _failed(state, where, error) from error
        if last:
            state._trial.step_ended(step, buffer.device)
        return buffer

    return state._thread.submit(job) if buffer.device.type == "cpu" else _on_own_stream(buffer, job)


def _require_usable(state: TernGradState, bucket: Any) -> None:
    if isinstance(bucket, tuple):
        raise InvalidArgument(
            "terngrad_hook: expected a bucket of DDP, got a tuple: torch.compile with optimize_ddp="
            '"python_reducer" calls hooks without buckets and drops what they return; set '
            'torch._dynamo.config.optimize_ddp to "ddp_optimizer", the default'
        )
    if not hasattr(state, "_channel"):
        raise InvalidArgument("terngrad_hook: the state was unpickled: call state.bind(ddp) on all workers first")
    buffer = bucket.buffer()
    if buffer.dtype not in (torch.float32, torch.bfloat16, torch.float16) or buffer.is_sparse:
        kind = f"sparse {buffer.dtype}" if buffer.is_sparse else str(buffer.dtype)
        raise InvalidArgument(
            f"terngrad_hook: expected dense float32, bfloat16 or float16 gradients, got {kind}; convert the "
            "model, or leave the hook out for it"
        )


def _known(state: TernGradState, parameter: Tensor) -> tuple[int, str]:
    """Number and name of a parameter."""
    found = state._names.get(id(parameter))
    if found is None:
        raise InvalidArgument(
            "terngrad_hook: DDP hands over a parameter that the state's model does not have: make the state with "
            "the same model, state = TernGradState(ddp)"
        )
    return found


def exchange_failure(error: RuntimeError) -> ExchangeFailed | None:
    """The failure of an exchange that DDP handed on as the text of another error; None for other errors.

    Args:
        error: what `backward` raised.

    Example:
        >>> exchange_failure(RuntimeError("running: ExchangeFailed: terngrad_hook: bucket 1 is lost\\n\\nAt: "))
        ExchangeFailed('terngrad_hook: bucket 1 is lost')
    """
    _, named, said = str(error).partition("terngrad_hook: ")
    return ExchangeFailed(named + said.split("\n\nAt:")[0].strip()) if named else None


def _failed(state: TernGradState, where: str, error: Exception) -> ExchangeFailed:
    return ExchangeFailed(
        f"terngrad_hook: {where} could not be exchanged on worker {state._channel.rank} of {state._channel.workers}: "
        f"{error}. Another worker ended, hung, or took fewer steps: its own output says why; start all of them again "
        "from the last checkpoint"
    )


def _average_floats(state: TernGradState, step: int, last: bool, buffer: Tensor, where: str) -> Future[Tensor]:
    """What DDP does without a hook; it orders these all-reduces itself."""
    buffer *= 1 / state._channel.workers  # the same bits as DDP's

    def ended(future: Future[list[Tensor]]) -> Tensor:
        try:
            result = future.value()[0]
        except RuntimeError as error:
            raise _failed(state, where, error) from error
        if last:
            state._trial.step_ended(step, buffer.device)
        return result

    # The order is that of the buckets, as DDP's own: in such a step nothing else is started on the channel.
    return state._channel.all_reduce(buffer).get_future().then(ended)


def _average(
    state: TernGradState, step: int, buffer: Tensor, gradients: Sequence[Tensor], known: Sequence[tuple[int, str]]
) -> None:
    """Steps 1 to 7 for a bucket, whose parameters have these numbers and names."""
    exchange, options = state._exchange_for(buffer.device), state.options
    whole = buffer.float()  # 1. itself where it is float32
    layers, kept, numbers, names = [], [], [], []
    for gradient, (number, name) in zip(gradients, known, strict=True):
        first = gradient.storage_offset() - buffer.storage_offset()
        flat = whole[first : first + gradient.numel()]
        if state._compressed[name]:
            layers.append(flat)
            numbers.append(number)
            names.append(name)
        else:
            kept.append(flat)
    residuals = _with_residuals(state, names, layers)
    statistics = torch.zeros(0, 4, dtype=torch.float64, device=buffer.device)
    if layers:
        statistics = exchange.codec.statistics(layers, totals=options.deviation is Deviation.ABOUT_MEAN)
    if options.granularity is Granularity.BUCKET:
        statistics = joint_statistics(statistics)
    own = local_scalers(statistics, options.clip_factor, options.deviation)  # 2.
    shared = own.clone()
    if options.share_scaler and state._channel.workers > 1 and layers:  # 3. of all layers in one collective
        state._channel.all_reduce(shared, largest=True).wait()
    keys = [stream_key(options.seed, state._channel.rank, step, number) for number in numbers]
    floats = torch.cat(kept) if kept else whole[:0]
    new = any(name not in state._zeros for name in names)  # a resumed run may end before the next count is due
    zeros = [0] * len(layers) if state.zeros_every and (new or step % state.zeros_every == 0) else []
    clips = own if options.clip_factor is not None else torch.full_like(own, math.inf)
    exchange.run(Bucket(layers, keys, shared, clips, floats, residuals, zeros))  # 4. to 7.
    state._zeros |= {name: (count, len(layer)) for name, count, layer in zip(names, zeros, layers, strict=False)}
    for flat, mean in zip(kept, floats.split([len(flat) for flat in kept]), strict=True):
        flat.copy_(mean)
    if whole is not buffer:
        buffer.copy_(whole)


def _with_residuals(state: TernGradState, names: Sequence[str], layers: Sequence[Tensor]) -> list[Tensor]:
    """Add what the last codes left out; memory for what these will leave out."""
    known = state._residuals
    if known is None:
        return []
    for name, layer in zip(names, layers, strict=True):
        known[name] = known[name].to(layer.device) if name in known else torch.zeros_like(layer)
        layer += known[name]
    return [known[name] for name in names]


def _on_own_stream(buffer: Tensor, job: Callable[[], Tensor]) -> Future[Tensor]:
    """Start a GPU's rounds behind its backward pass without waiting for any of it; only streams wait for streams."""
    device, ready = buffer.device, Future(devices=[buffer.device])
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        buffer.record_stream(stream)
        ready.set_result(job())
    return ready
