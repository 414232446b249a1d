"""TernGrad as a hook of DistributedDataParallel: gradients travel as ternary codes, packed, in both directions.

TernGrad, Wen et al., NIPS 2017, algorithm 1, whose steps are numbered in the code below:
    worker  1. gradient  2. clip  3. share the scaler s = max_i s_i  4. ternarize  5. push codes
    server  6. average   worker  7. pull, and step its own copy of the parameters with the average
Departs from the paper: no server of its own (`ternary_wire`); averages come back exact, in log2(2N+1) bits; steps 1 and
2 use `Deviation.ABOUT_ZERO` by default; small tensors travel as floats (`ternary_options`); AUTO may decide for floats.
"""

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.float_trial import FloatTrial
from spokeshave.communication.ordered_thread import OrderedThread
from spokeshave.communication.ternary_channel import Channel
from spokeshave.communication.ternary_codes import Deviation, joint_statistics, local_scalers
from spokeshave.communication.ternary_options import Granularity, TernaryOptions, compressed_parameters
from spokeshave.communication.ternary_packing import TernaryCodec, codec_for
from spokeshave.communication.ternary_wire import Bucket, TernaryExchange, Wire
from spokeshave.errors import CheckpointError, ExchangeFailed, InvalidArgument

_UNPICKLED = ("_group", "_channel", "_thread", "_exchange", "_names", "_parameters", "_compressed", "_codec")
"""What belongs to one process and its model."""


class TernGradState:
    """What `terngrad_hook` knows of a model and of the workers; made by all workers together.

    Args:
        model: the one that DistributedDataParallel wraps, or the wrapped one.
        process_group: of the workers; the default one by default.
        clip_factor: c of the clipping at c * sigma; None for none.
        deviation: sigma about what.
        granularity: a scaler for each layer (parameter tensor), or for a bucket of layers.
        share_scaler: the workers take the largest of their scalers. False: each its own, which takes Wire.ALLGATHER.
        wire: how codes travel.
        pack: bits of a code: 2, or 1.6 for a little more work.
        start_iter: steps before this one send floats.
        min_numel: parameters of fewer elements travel as floats.
        skip: names of parameters or modules that travel as floats.
        skip_last_layer: the last module with a weight travels as floats, as for AlexNet in the paper.
        error_feedback: what a code left out is added to the next step's gradient. Codes are unbiased without.
        seed: of the random numbers, the same on every worker.
        trial_steps: with Wire.AUTO so many steps are timed at the beginning, floats and codes in turns, and floats are
            sent from then on where they are faster; 0 for no trial. Steps that are repeated must not depend on time:
            name a wire, or set 0, for that.
        zeros_every: steps between counts of zero codes for `compression_stats`; 0 for never.
        timeout: of a collective; the group's own by default.
        codec: of gradients and codes; the fastest by default.

    Attributes:
        step: number of the next step, from 0; part of the random numbers.
        bytes_sent: payload that this worker sent since the beginning, without the network's headers.

    Raises:
        InvalidArgument: where an option is out of its range, options contradict, or no process group was made.

    Example:
        state = ss.TernGradState(ddp, clip_factor=2.5)
        ddp.register_comm_hook(state, ss.terngrad_hook)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        process_group: distributed.ProcessGroup | None = None,
        clip_factor: float | None = 2.5,
        deviation: Deviation = Deviation.ABOUT_ZERO,
        granularity: Granularity = Granularity.LAYER,
        share_scaler: bool = True,
        wire: Wire = Wire.AUTO,
        pack: Pack = Pack.TWO_BIT,
        start_iter: int = 0,
        min_numel: int = 1024,
        skip: Sequence[str] = (),
        skip_last_layer: bool = False,
        error_feedback: bool = False,
        seed: int = 0,
        trial_steps: int = 12,
        zeros_every: int = 0,
        timeout: timedelta | None = None,
        codec: TernaryCodec | None = None,
    ) -> None:
        self.options = TernaryOptions(
            clip_factor=clip_factor, deviation=deviation, granularity=granularity, share_scaler=share_scaler,
            min_numel=min_numel, skip=tuple(skip), skip_last_layer=skip_last_layer, seed=seed,
        )  # fmt: skip
        if min(start_iter, trial_steps, zeros_every) < 0:
            raise InvalidArgument(
                "start_iter, trial_steps and zeros_every must be at least 0, got "
                f"{start_iter}, {trial_steps}, {zeros_every}"
            )
        self.wire, self.pack, self.start_iter, self.zeros_every = wire, pack, start_iter, zeros_every
        self.step = 0
        self._sent_before = 0
        self._trial = FloatTrial(trial_steps if wire is Wire.AUTO else 0, start_iter)
        self._residuals: dict[str, Tensor] | None = {} if error_feedback else None
        self._zeros: dict[str, tuple[int, int]] = {}
        self.bind(model, process_group, timeout, codec)

    def bind(
        self,
        model: nn.Module,
        process_group: distributed.ProcessGroup | None = None,
        timeout: timedelta | None = None,
        codec: TernaryCodec | None = None,
    ) -> None:
        """Tie the state to a model and to workers: again after it was unpickled. All workers do it together.

        Args:
            model: as in the constructor.
            process_group: likewise.
            timeout: likewise.
            codec: likewise.

        Raises:
            InvalidArgument: as the constructor does.
        """
        if not distributed.is_initialized():
            raise InvalidArgument(
                "TernGradState: no process group was made; call torch.distributed.init_process_group first, "
                "as DistributedDataParallel needs it too"
            )
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        group = process_group
        if group is None:
            group = model.process_group if isinstance(model, DistributedDataParallel) else distributed.group.WORLD
        assert group is not None
        self._compressed = compressed_parameters(bare, self.options)
        self._parameters = list(bare.parameters())  # kept, so that what is found by identity stays what it is
        self._names = {id(one): (number, name) for number, (name, one) in enumerate(bare.named_parameters())}
        if self.wire.chosen(group.size()) is not Wire.ALLGATHER and not self.options.share_scaler:
            raise InvalidArgument(
                "share_scaler=False needs wire=Wire.ALLGATHER (codes of different scalers cannot be added), "
                f"got {self.wire} for {group.size()} workers"
            )
        self._group, self._codec, self._thread = group, codec, OrderedThread()
        self._channel, self._exchange = Channel(group, timeout), None
        said = self._channel.agree(f"{self.options}, {self.wire}, {self.pack}, start_iter={self.start_iter}")
        if len(set(said)) > 1:
            different = next(rank for rank, text in enumerate(said) if text != said[0])
            raise InvalidArgument(
                f"TernGradState: the workers' options differ: worker 0 has {said[0]}, worker {different} has "
                f"{said[different]}; make all states with the same"
            )

    @property
    def bytes_sent(self) -> int:
        """Payload that this worker sent since the beginning."""
        return self._sent_before + self._channel.bytes_sent

    @property
    def verdict(self) -> str | None:
        """What AUTO found in its trial; None before it, or without one."""
        return self._trial.verdict

    def compression_stats(self) -> dict[str, Any]:
        """What was sent so far.

        Returns:
            steps, bytes_sent, float_bytes (what a ring all-reduce of float32 would have sent), factor (their quotient),
            wire, verdict of the trial, and zero_codes: share by parameter, 0..1, where they are counted.
        """
        elements = sum(parameter.numel() for parameter in self._parameters if parameter.requires_grad)
        workers = self._channel.workers
        floats = self.step * 8 * elements * (workers - 1) // workers
        return {
            "steps": self.step, "bytes_sent": self.bytes_sent, "float_bytes": floats,
            "factor": floats / self.bytes_sent if self.bytes_sent else math.nan,
            "wire": self.wire.chosen(workers).value, "verdict": self.verdict,
            "zero_codes": {name: zeros / max(1, codes) for name, (zeros, codes) in self._zeros.items()},
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of this worker has to hold: plain values, and tensors with error feedback."""
        return {
            "step": self.step,
            "bytes_sent": self.bytes_sent,
            "seed": self.options.seed,
            "trial": self._trial.state_dict(),
            "residuals": dict(self._residuals or {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint of the same worker was written.

        Raises:
            CheckpointError: where it is not one, or has another seed.
        """
        missing = sorted({"step", "bytes_sent", "seed", "trial", "residuals"} - set(state))
        if missing:
            raise CheckpointError(f"expected what TernGradState.state_dict() gave, got a dict without {missing}")
        if state["seed"] != self.options.seed:
            raise CheckpointError(
                f"the checkpoint's random numbers have seed {state['seed']}, this state has {self.options.seed}; "
                "make the state with the same seed"
            )
        self.step = state["step"]
        self._sent_before = state["bytes_sent"] - self._channel.bytes_sent
        self._trial.load_state_dict(state["trial"])
        if self._residuals is not None:
            self._residuals = dict(state["residuals"])

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in _UNPICKLED}
        return kept | {"_sent_before": self.bytes_sent}

    def _exchange_for(self, device: torch.device) -> TernaryExchange:
        if self._exchange is None:
            codec = self._codec or codec_for(device.type)
            self._exchange = TernaryExchange(self._channel, codec, self.pack, self.wire, self.options.share_scaler)
        return self._exchange


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
        ExchangeFailed: through the future, or at the next bucket: a worker ended or hung.
    """
    _require_usable(state, bucket)
    step, last, buffer = state.step, bucket.is_last(), bucket.buffer()
    if last:
        state.step = step + 1
    where = f"bucket {bucket.index()} of step {step}"
    if step < state.start_iter or state._trial.sends_floats(step, state._channel):
        return _average_floats(state, step, last, buffer, where)
    gradients, parameters = bucket.gradients(), bucket.parameters()

    def job() -> Tensor:
        try:
            _average(state, step, buffer, gradients, parameters)
        except RuntimeError as error:
            raise _failed(state, where, error) from error
        if last:
            state._trial.step_ended(step)
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
        raise InvalidArgument(
            f"terngrad_hook: expected dense float32, bfloat16 or float16 gradients, got {buffer.dtype}; convert the "
            "model, or leave the hook out for it"
        )


def _failed(state: TernGradState, where: str, error: Exception) -> ExchangeFailed:
    return ExchangeFailed(
        f"terngrad_hook: {where} could not be exchanged on worker {state._channel.rank} of {state._channel.workers}: "
        f"{error}. Another worker ended, hung, or took fewer steps: its own output says why; start all of them again "
        "from the last checkpoint"
    )


def _average_floats(state: TernGradState, step: int, last: bool, buffer: Tensor, where: str) -> Future[Tensor]:
    """What DDP does without a hook; it orders these all-reduces itself."""
    buffer /= state._channel.workers
    state._sent_before += state._channel.reduce_bytes(buffer)

    def ended(future: Future[list[Tensor]]) -> Tensor:
        try:
            result = future.value()[0]
        except RuntimeError as error:
            raise _failed(state, where, error) from error
        if last:
            state._trial.step_ended(step)
        return result

    work: Any = distributed.all_reduce(buffer, group=state._group, async_op=True)
    return work.get_future().then(ended)


def _average(
    state: TernGradState, step: int, buffer: Tensor, gradients: Sequence[Tensor], parameters: Sequence[Tensor]
) -> None:
    """Steps 1 to 7 for a bucket."""
    exchange, options = state._exchange_for(buffer.device), state.options
    whole = buffer.float()  # 1. itself where it is float32
    layers, kept, numbers, names = [], [], [], []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        number, name = state._names.get(id(parameter), (-1, ""))
        if number < 0:
            raise InvalidArgument(
                "terngrad_hook: DDP hands over a parameter that the state's model does not have: make the state with "
                "the same model, state = TernGradState(ddp)"
            )
        first = gradient.storage_offset() - buffer.storage_offset()
        flat = whole[first : first + gradient.numel()]
        if state._compressed[name]:
            layers.append(flat)
            numbers.append(number)
            names.append(name)
        else:
            kept.append(flat)
    residuals = _with_residuals(state, names, layers)
    statistics = exchange.codec.statistics(layers, totals=options.deviation is Deviation.ABOUT_MEAN)
    if options.granularity is Granularity.BUCKET:
        statistics = joint_statistics(statistics)
    own = local_scalers(statistics, options.clip_factor, options.deviation)  # 2.
    shared = own.clone()
    if options.share_scaler and state._channel.workers > 1 and layers:  # 3. of all layers in one collective
        state._channel.all_reduce(shared, largest=True).wait()
    keys = [stream_key(options.seed, state._channel.rank, step, number) for number in numbers]
    floats = torch.cat(kept) if kept else whole[:0]
    counted = state.zeros_every and step % state.zeros_every == 0
    zeros = [0] * len(layers) if counted else []
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
        layer += known.setdefault(name, torch.zeros_like(layer))
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
