"""Ternary reduce-scatter: FSDP2 sends gradients as ternary codes to the workers that own them.

TernGrad, Wen et al., NIPS 2017, with fully sharded parameters: only the way to the server is left, since nobody else
wants the sums; 2 or 1.6 bits a gradient in place of 32. Parameters and everything else of FSDP travel as before.
Departs from the paper: what is sharded together (an argument of `fully_shard`) shares a scaler; shard layers one by one
for a scaler a layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import Pack, code_packing, packed_bytes
from spokeshave.communication.ternary_codes import Deviation, local_scalers
from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.communication.ternary_packing import Place, codec_for
from spokeshave.errors import CheckpointError, InvalidArgument, NothingChanged


class TernaryReduceScatter:
    """The reduce-scatters of one sharded model.

    Attributes:
        bytes_sent: payload of gradients that this worker sent.
    """

    def __init__(self, options: TernaryOptions, pack: Pack, names: Sequence[str]) -> None:
        self.options, self.pack, self.bytes_sent = options, pack, 0
        self._steps = dict.fromkeys(names, 0)

    def state_dict(self) -> dict[str, Any]:
        """How often each part was exchanged, by name: what a resumed run needs for the same random numbers."""
        return {"steps": dict(self._steps), "seed": self.options.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Raises:
            CheckpointError: where it is of another model or seed.
        """
        if state.get("seed") != self.options.seed or set(state.get("steps", ())) != set(self._steps):
            raise CheckpointError(
                f"expected the state of a model sharded at {sorted(self._steps)} with seed {self.options.seed}, got "
                f"{sorted(state.get('steps', ()))} and {state.get('seed')}"
            )
        self._steps = dict(state["steps"])

    def _exchange(
        self, name: str, output: Tensor, given: Tensor, group: distributed.ProcessGroup, mean: bool
    ) -> distributed.Work | None:
        step, number = self._steps[name], list(self._steps).index(name)
        self._steps[name] = step + 1
        workers, rank = group.size(), group.rank()
        if given.numel() < self.options.min_numel:
            self.bytes_sent += given.nbytes * (workers - 1) // workers
            scatter: Any = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)
            operation = distributed.ReduceOp.AVG if mean and _averages(group) else distributed.ReduceOp.SUM
            scatter(output, given, op=operation, group=group)
            if mean and operation is distributed.ReduceOp.SUM:
                output /= workers
            return None
        codec, codes = codec_for(given.device.type), code_packing(self.pack)
        whole = given.float()
        statistics = codec.statistics([whole], totals=self.options.deviation is Deviation.ABOUT_MEAN)
        own = local_scalers(statistics, self.options.clip_factor, self.options.deviation)
        clip = own if self.options.clip_factor is not None else torch.full_like(own, torch.inf)
        shared = own.clone()
        distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=group)
        # Every owner's share is a stream of its own.
        shares, each = whole.view(workers, -1), packed_bytes(codes, whole.numel() // workers)
        rows = each // codes.block_bytes * codes.digits
        places = [Place(owner * rows, shares.shape[1]) for owner in range(workers)]
        keys = [stream_key(self.options.seed, rank, step, number * workers + owner) for owner in range(workers)]
        sent = torch.empty(workers * each, dtype=torch.uint8, device=given.device)
        codec.encode(list(shares), shared.expand(workers), clip.expand(workers), keys, codes, places, sent)
        received = torch.empty_like(sent)
        distributed.all_to_all_single(received, sent, group=group)
        self.bytes_sent += (workers - 1) * each + 8 * (workers - 1) // workers
        target = output if output.dtype == torch.float32 else torch.empty_like(output, dtype=torch.float32)
        factor = shared / workers if mean else shared
        codec.decode(list(received.view(workers, -1)), codes, workers, factor, [Place(0, len(target))], [target])
        if target is not output:
            output.copy_(target)
        return None


class _OfOnePart:
    """What FSDP calls for one of its modules; it asks for no base class."""

    def __init__(self, whole: TernaryReduceScatter, name: str) -> None:
        self._whole, self._name = whole, name

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory of FSDP's input and output."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> distributed.Work | None:
        """Add the workers' gradients; done when it returns, on a GPU in the order of the stream."""
        if op not in (distributed.ReduceOp.AVG, distributed.ReduceOp.SUM):
            raise InvalidArgument(
                f"{self._name}: ternary gradients can be added or averaged, FSDP asks for {op}; leave out "
                "set_gradient_divide_factor"
            )
        mean = op == distributed.ReduceOp.AVG
        return self._whole._exchange(self._name, output_tensor, input_tensor, group, mean)


def ternary_reduce_scatter(
    model: nn.Module,
    *,
    clip_factor: float | None = 2.5,
    deviation: Deviation = Deviation.ABOUT_ZERO,
    min_numel: int = 1024,
    pack: Pack = Pack.TWO_BIT,
    skip: Sequence[str] = (),
    seed: int = 0,
) -> TernaryReduceScatter:
    """Let a model that `fully_shard` sharded send its gradients as ternary codes.

    Args:
        model: with modules that were sharded.
        clip_factor: c of the clipping at c * sigma; None for none.
        deviation: sigma about what.
        min_numel: what is sharded together and has fewer elements travels as floats.
        pack: of the codes.
        skip: names of sharded modules that stay as they are.
        seed: of the random numbers, the same on every worker.

    Returns:
        Counts the bytes, and has the state that a checkpoint has to hold.

    Raises:
        NothingChanged: where no module was sharded, or all are skipped.
        InvalidArgument: for a name that is no sharded module.

    Example:
        fully_shard(model); exchange = ss.ternary_reduce_scatter(model)
    """
    parts = {name: module for name, module in model.named_modules() if isinstance(module, FSDPModule)}
    unknown = sorted(set(skip) - set(parts))
    if unknown:
        raise InvalidArgument(
            f"skip: {', '.join(unknown)} is no sharded module; those are {', '.join(parts) or 'none'}"
        )
    chosen = {name: module for name, module in parts.items() if name not in skip}
    if not chosen:
        raise NothingChanged(
            "ternary_reduce_scatter: the model has no module that fully_shard sharded"
            + ("" if not parts else " and skip does not name")
            + "; call torch.distributed.fsdp.fully_shard(model) first"
        )
    options = TernaryOptions(clip_factor=clip_factor, deviation=deviation, min_numel=min_numel, seed=seed)
    whole = TernaryReduceScatter(options, pack, list(chosen))
    for name, module in chosen.items():
        module.set_custom_reduce_scatter(_OfOnePart(whole, name))  # pyright: ignore[reportArgumentType]
    return whole


def _averages(group: distributed.ProcessGroup) -> bool:
    return distributed.get_backend(group) == "nccl"
