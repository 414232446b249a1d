"""TernGrad's state: what a worker knows of its model, of the others, and of how gradients travel between them.

TernGrad, Wen et al., NIPS 2017. `terngrad.terngrad_hook` is what DDP calls with it.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.float_trial import FloatTrial
from spokeshave.communication.ordered_thread import OrderedThread
from spokeshave.communication.ternary_channel import Channel
from spokeshave.communication.ternary_codes import Deviation
from spokeshave.communication.ternary_options import Granularity, TernaryOptions, compressed_parameters
from spokeshave.communication.ternary_packing import TernaryCodec, codec_for
from spokeshave.communication.ternary_wire import TernaryExchange, Wire
from spokeshave.errors import CheckpointError, InvalidArgument

_UNPICKLED = ("_channel", "_thread", "_exchange", "_names", "_parameters", "_compressed", "_codec")
"""What belongs to one process and its model."""


class TernGradState:
    """What `terngrad_hook` knows of a model and of the workers; made by all workers together.

    Args:
        model: the one that DistributedDataParallel wraps, or the wrapped one.
        process_group: of the workers; that of `model` by default, and the default one where it is not wrapped yet.
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
        seed: of the random numbers, the same on every worker; another one for each model in a process.
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
            min_numel=min_numel, skip=skip if isinstance(skip, str) else tuple(skip),  # pyright: ignore[reportArgumentType] - refused there
            skip_last_layer=skip_last_layer, seed=seed,
        )  # fmt: skip
        if min(start_iter, trial_steps, zeros_every) < 0:
            raise InvalidArgument(
                "start_iter, trial_steps and zeros_every must be at least 0, got "
                f"{start_iter}, {trial_steps}, {zeros_every}"
            )
        self.wire, self.pack, self.start_iter, self.zeros_every = wire, pack, start_iter, zeros_every
        self.step, self.trial_steps = 0, trial_steps
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
        sent, channel = self.bytes_sent, Channel(group, timeout)
        self._sent_before, self._channel, self._exchange = sent, channel, None
        self._codec, self._thread, self._unsettled = codec, OrderedThread(), False
        sizes = ", ".join(f"{name}: {one.numel()}" for name, one in bare.named_parameters() if self._compressed[name])
        self._agree(
            f"options differ: {self.options}, {self.wire}, {self.pack}, start_iter={self.start_iter}, "
            f"trial_steps={self.trial_steps}; made ternary: {sizes}"
        )

    def _agree(self, text: str) -> None:
        """Refuse what is not the same on every worker: they would wait for each other."""
        said = self._channel.agree(text)
        different = next((rank for rank, theirs in enumerate(said) if theirs != said[0]), None)
        if different is not None:
            raise InvalidArgument(
                f"TernGradState: the workers' {said[0]} on worker 0, and on worker {different} "
                f"{said[different].partition(': ')[2]}; make them the same"
            )

    @property
    def bytes_sent(self) -> int:
        """Payload that this worker sent since the beginning."""
        return self._sent_before + (self._channel.bytes_sent if hasattr(self, "_channel") else 0)

    @property
    def verdict(self) -> str | None:
        """What AUTO found in its trial; None before it, or without one."""
        return self._trial.verdict

    def compression_stats(self) -> dict[str, Any]:
        """What was sent so far.

        Returns:
            steps, bytes_sent, float_bytes (what a ring all-reduce of float32 would have sent), factor (their quotient),
            wire, verdict of the trial, and zero_codes: share by parameter, 0..1, where they are counted.

        Raises:
            InvalidArgument: where the state was unpickled and not bound yet.
        """
        if not hasattr(self, "_channel"):
            raise InvalidArgument("TernGradState: the state is not bound to a model: call bind first")
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
            "workers": self._channel.workers if hasattr(self, "_channel") else 0,
            "trial": self._trial.state_dict(),
            "residuals": {name: kept.clone() for name, kept in (self._residuals or {}).items()},
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
        self._sent_before += state["bytes_sent"] - self.bytes_sent
        self._unsettled = True
        if state.get("workers") == self._channel.workers:  # for others another verdict may be right
            self._trial.load_state_dict(state["trial"])
        if self._residuals is not None:
            self._residuals = {name: kept.clone() for name, kept in state["residuals"].items()}

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in _UNPICKLED}
        return kept | {"_sent_before": self.bytes_sent}

    def _exchange_for(self, device: torch.device) -> TernaryExchange:
        if self._exchange is None:
            codec = self._codec or codec_for(device.type)
            self._exchange = TernaryExchange(self._channel, codec, self.pack, self.wire, self.options.share_scaler)
        return self._exchange
