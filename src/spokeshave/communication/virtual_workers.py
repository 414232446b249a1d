"""Virtual workers: one process plays the N workers of TernGrad, one after the other; the authors' code did the same.

TernGrad, Wen et al., NIPS 2017, algorithm 1: each worker ternarizes the gradient of its share of the batch with the
largest of the workers' scalers; the mean of the codes is what every worker steps with. Nothing travels.
The numbers are those of `terngrad_hook` among N processes: share r of a batch is what `Batches(rank=r, world_size=N)`
gives where nothing is augmented, and random numbers depend on seed, worker, step, parameter and element only. Running
statistics of batch normalization see one worker after the other; DistributedDataParallel keeps the first one's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import LANES, Pack, code_packing, packed_bytes, unpack_digits
from spokeshave.communication.ternary_codes import decode_factors, local_scalers
from spokeshave.communication.ternary_options import Granularity, TernaryOptions, compressed_parameters
from spokeshave.communication.ternary_packing import Place, codec_for
from spokeshave.errors import InvalidArgument

PACKING = code_packing(Pack.TWO_BIT)
"""Any would do: codes are packed as workers send them, and nothing is sent."""


class VirtualWorkers:
    """N workers in one process, as a `GradientExchange` of the training loop.

    Args:
        workers: N, at least 1; every batch must have a multiple of N images.
        options: how gradients become codes.

    Raises:
        InvalidArgument: for less than one worker, or scalers of buckets, which only DistributedDataParallel knows.

    Example:
        >>> model = nn.Linear(64, 32)
        >>> pair = VirtualWorkers(2, TernaryOptions())
        >>> pair.attach(model)
        >>> def one_worker(inputs, labels):
        ...     loss = nn.functional.cross_entropy(model(inputs), labels)
        ...     loss.backward()
        ...     return float(loss.detach())
        >>> loss = pair.backward(0, torch.ones(4, 64), torch.tensor([0, 1, 2, 3]), one_worker)
        >>> len(model.weight.grad.unique()) <= 5  # s / 2 times -2, -1, 0, 1 or 2
        True
    """

    def __init__(self, workers: int, options: TernaryOptions) -> None:
        if workers < 1:
            raise InvalidArgument(f"expected at least one worker, got {workers}")
        if options.granularity is not Granularity.LAYER:
            raise InvalidArgument(f"virtual workers have no buckets: expected {Granularity.LAYER}, got {options}")
        self.workers, self.options = workers, options
        self._parameters: dict[str, nn.Parameter] = {}
        self._compressed: dict[str, bool] = {}
        self._numbers: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self._streams: list[Tensor] = []

    def attach(self, network: nn.Module) -> None:
        """Take the network whose gradients are exchanged.

        Raises:
            InvalidArgument: where it is one of several processes', or the options skip what it does not have.
        """
        if isinstance(network, DistributedDataParallel):
            raise InvalidArgument("virtual workers run alone: under torchrun register terngrad_hook")
        self._compressed = compressed_parameters(network, self.options)
        self._parameters = dict(network.named_parameters())
        self._numbers = {name: number for number, name in enumerate(self._parameters)}

    def backward(
        self, step: int, inputs: Tensor, labels: Tensor, one_worker: Callable[[Tensor, Tensor], float]
    ) -> float:
        """Leave the mean of the workers' ternary gradients in `.grad`.

        Args:
            step: part of the random numbers.
            inputs: of all workers, dealt out one by one.
            labels: of the inputs.
            one_worker: adds the gradient of a share to `.grad`, and returns its loss.

        Returns:
            The mean of the workers' losses.

        Raises:
            InvalidArgument: where the batch cannot be dealt out evenly.
        """
        if len(labels) % self.workers:
            raise InvalidArgument(
                f"a batch of {len(labels)} images cannot be dealt out evenly to {self.workers} workers: choose a "
                "multiple, and drop the last, smaller one of an epoch (Batches(drop_last=True))"
            )
        losses, gradients = [], []
        for rank in range(self.workers):
            losses.append(one_worker(_share(inputs, rank, self.workers), labels[rank :: self.workers]))
            gradients.append({name: one.grad for name, one in self._parameters.items() if one.grad is not None})
            for parameter in self._parameters.values():
                parameter.grad = None
        # What only some workers used has a gradient of zero on the others, as in DistributedDataParallel.
        used = [name for name in self._parameters if any(name in own for own in gradients)]
        whole = [
            {name: own[name] if name in own else torch.zeros_like(self._parameters[name]) for name in used}
            for own in gradients
        ]
        for name in used:
            if not self._compressed[name]:
                total = whole[0][name]
                for own in whole[1:]:
                    total = total + own[name]
                self._parameters[name].grad = total / self.workers
        self._exchange(step, whole)
        return sum(losses) / self.workers

    def report(self) -> dict[str, Any]:
        """Share of zero codes of the last step by parameter, 0..1."""
        if not self._streams:
            return {"zero_codes": {}}
        digits = torch.stack([unpack_digits(stream.cpu(), PACKING) for stream in self._streams])
        parts = {name: (place.first_row * LANES, place.elements) for name, place in self._places.items()}
        shares = {name: digits[:, start : start + count] == 1 for name, (start, count) in parts.items()}
        return {"zero_codes": {name: float(zero.double().mean()) for name, zero in shares.items() if zero.numel()}}

    def settings(self) -> dict[str, Any]:
        """The options, and the number of workers."""
        return self.options.to_dict() | {"workers": self.workers}

    def _exchange(self, step: int, gradients: list[dict[str, Tensor]]) -> None:
        """What the hook does on N workers and between them, for the parameters that are compressed."""
        names = [name for name in gradients[0] if self._compressed[name]]
        if not names:
            return
        codec = codec_for(self._parameters[names[0]].device.type)
        flat = [[_in_memory_order(own[name], self._parameters[name]).float() for name in names] for own in gradients]
        statistics = [codec.statistics(own) for own in flat]
        own_scalers = [local_scalers(one, self.options.clip_factor, self.options.deviation) for one in statistics]
        shared = torch.stack(own_scalers).amax(0)
        self._places, rows = {}, 0
        for name in names:
            self._places[name] = Place(rows, self._parameters[name].numel())
            rows += -(-self._parameters[name].numel() // PACKING.block_digits) * PACKING.digits
        places, device = list(self._places.values()), flat[0][0].device
        self._streams = []
        for rank, clips in enumerate(own_scalers):
            packed = torch.empty(packed_bytes(PACKING, rows * LANES), dtype=torch.uint8, device=device)
            keys = [stream_key(self.options.seed, rank, step, self._numbers[name]) for name in names]
            scalers = shared if self.options.share_scaler else clips
            codec.encode(flat[rank], scalers, clips, keys, PACKING, places, packed)
            self._streams.append(packed)
        means = [torch.empty_like(own) for own in flat[0]]
        if self.options.share_scaler:
            factors = decode_factors(shared, self.workers)
            codec.decode(self._streams, PACKING, self.workers, factors, places, means)
        else:
            for rank, (stream, scalers) in enumerate(zip(self._streams, own_scalers, strict=True)):
                factors = decode_factors(scalers, self.workers)
                codec.decode([stream], PACKING, 1, factors, places, means, add=rank > 0)
        for name, mean in zip(names, means, strict=True):
            parameter = self._parameters[name]
            parameter.grad = torch.empty_like(parameter, requires_grad=False)
            _in_memory_order(parameter.grad, parameter).copy_(mean)


def _in_memory_order(values: Tensor, like: Tensor) -> Tensor:
    """Elements as they lie in the memory of a parameter: the order in which buckets of gradients hold them."""
    if values.stride() != like.stride():
        values = torch.empty_like(like, dtype=values.dtype, requires_grad=False).copy_(values)
    return values.as_strided((values.numel(),), (1,))


def _share(inputs: Tensor, rank: int, workers: int) -> Tensor:
    """One worker's images, in the memory format of the batch: that of a batch of its own."""
    plain = inputs.is_contiguous() or inputs.dim() != 4
    layout = torch.contiguous_format if plain else torch.channels_last
    return inputs[rank::workers].contiguous(memory_format=layout)
