"""Virtual workers: one process plays the N workers of TernGrad, one after the other; the authors' code did the same.

TernGrad, Wen et al., NIPS 2017, algorithm 1: each worker ternarizes the gradient of its share of the batch with the
largest of the workers' scalers; the mean of the codes is what every worker steps with. Nothing travels.
With floats skipped by the same rules, the same numbers as `terngrad_hook` among N processes: share r of a batch is
what `Batches(rank=r, world_size=N)` gives where nothing is augmented, and random numbers depend on seed, worker, step,
parameter and element only. Batch normalization sees one worker after the other; DistributedDataParallel keeps the first
one's running statistics.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.counter_random import FIRST_FACTOR, RANDOM_BITS, SECOND_FACTOR, StreamKey, stream_key
from spokeshave.communication.ternary_codes import (
    LARGEST,
    decode_factors,
    draw_factors,
    local_scalers,
    statistics_of,
)
from spokeshave.communication.ternary_options import TernaryOptions, compressed_parameters
from spokeshave.errors import InvalidArgument

CHUNK = 1 << 16
"""Elements that are worked on at a time: what the passes over them read stays in the cache of a core."""


class VirtualWorkers:
    """N workers in one process, as a `GradientExchange` of the training loop.

    Args:
        workers: N, at least 1; every batch must have a multiple of N images.
        options: how gradients become codes.

    Raises:
        InvalidArgument: for less than one worker.

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
        self.workers, self.options = workers, options
        self._parameters: dict[str, nn.Parameter] = {}
        self._compressed: dict[str, bool] = {}
        self._zero_codes: dict[str, float] = {}

    def attach(self, network: nn.Module) -> None:
        """Take the network whose gradients are exchanged.

        Raises:
            InvalidArgument: where it is one of several processes', or the options skip what it does not have.
        """
        if isinstance(network, DistributedDataParallel):
            raise InvalidArgument("virtual workers run alone: under torchrun register terngrad_hook")
        self._compressed = compressed_parameters(network, self.options)
        self._parameters = dict(network.named_parameters())

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
            gradients.append([parameter.grad for parameter in self._parameters.values()])
            for parameter in self._parameters.values():
                parameter.grad = None
        for number, (name, parameter) in enumerate(self._parameters.items()):
            theirs = [given[number] for given in gradients]
            if any(gradient is not None for gradient in theirs):
                whole = [torch.zeros_like(parameter) if gradient is None else gradient for gradient in theirs]
                parameter.grad = self._mean(name, number, parameter, step, whole)
        return sum(losses) / self.workers

    def report(self) -> dict[str, Any]:
        """Share of zero codes of the last step by parameter, 0..1."""
        return {"zero_codes": dict(self._zero_codes)}

    def settings(self) -> dict[str, Any]:
        """The options, and the number of workers."""
        options = self.options
        return {
            "workers": self.workers, "clip_factor": options.clip_factor, "deviation": options.deviation.value,
            "share_scaler": options.share_scaler, "min_numel": options.min_numel, "skip": list(options.skip),
            "skip_last_layer": options.skip_last_layer, "seed": options.seed,
        }  # fmt: skip

    def _mean(self, name: str, number: int, parameter: Tensor, step: int, gradients: list[Tensor]) -> Tensor:
        if not self._compressed[name]:
            total = gradients[0]
            for gradient in gradients[1:]:
                total = total + gradient
            return total / self.workers
        flat = [_in_memory_order(gradient, parameter).float() for gradient in gradients]
        statistics = torch.stack([quick_statistics(gradient) for gradient in flat])
        own = local_scalers(statistics, self.options.clip_factor, self.options.deviation)
        shared = own.max().expand(self.workers) if self.options.share_scaler else own
        draw, decode = draw_factors(shared), decode_factors(shared, self.workers)
        keys = [stream_key(self.options.seed, rank, step, number) for rank in range(self.workers)]
        mean, zeros = torch.empty_like(parameter, requires_grad=False), 0
        for start in range(0, parameter.numel(), CHUNK):
            part = slice(start, start + CHUNK)
            sums = torch.zeros_like(flat[0][part])
            for rank, gradient in enumerate(flat):
                codes, drawn = quick_codes(gradient[part], draw[rank], keys[rank], own[rank], start)
                zeros += len(codes) - drawn
                sums += codes if self.options.share_scaler else codes * decode[rank]
            _in_memory_order(mean, parameter)[part] = sums * decode[0] if self.options.share_scaler else sums
        self._zero_codes[name] = float(zeros) / max(1, parameter.numel() * self.workers)
        return mean


def quick_statistics(gradient: Float32[Tensor, " elements"]) -> Float64[Tensor, "4"]:
    """What `statistics_of` gives, a chunk at a time; sums differ in their last bits.

    Args:
        gradient: of a layer.
    """
    chunks = torch.stack([statistics_of(part) for part in gradient.split(CHUNK)])
    whole = chunks.sum(0)
    whole[LARGEST] = chunks[:, LARGEST].max()  # NaN, where there is one
    return whole


def quick_codes(
    gradient: Float32[Tensor, " elements"],
    draw_factor: Float32[Tensor, ""],
    key: StreamKey,
    clip_at: Float32[Tensor, ""],
    first: int = 0,
) -> tuple[Float32[Tensor, " elements"], Float32[Tensor, ""]]:
    """What `ternarize` gives, as floats and in 32 bits throughout; and how many are not zero.

    Args:
        gradient: of a part of a layer.
        draw_factor: of the scaler.
        key: of the layer's random numbers.
        clip_at: absolute values above it count as it.
        first: number of the part's first element in the layer.

    Example:
        >>> quick_codes(torch.tensor([1.0, -1.0, 0.5]), torch.tensor(2.0**24), StreamKey(1, 2), torch.tensor(1.0))
        (tensor([ 1., -1.,  1.]), tensor(3.))
    """
    chance = torch.minimum(gradient.abs(), clip_at).mul_(draw_factor)
    # Not by comparing: what makes and reads truth values takes several times as long. The sign of NaN is 0.
    drawn = chance.sub_(_quick_numbers(key, first, len(gradient), gradient.device)).relu_().sign_()
    return drawn * gradient.sign(), drawn.sum()


def _quick_numbers(key: StreamKey, first: int, count: int, device: torch.device) -> Int32[Tensor, " count"]:
    """What `random_numbers` gives: products of 32-bit integers keep the low 32 bits as they are."""
    mixed = torch.arange(_signed(first), _signed(first) + count, dtype=torch.int32, device=device)
    mixed.bitwise_xor_(_signed(key.first))
    mixed.bitwise_xor_((mixed >> 16).bitwise_and_(0xFFFF)).mul_(_signed(FIRST_FACTOR)).add_(_signed(key.second))
    mixed.bitwise_xor_((mixed >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(SECOND_FACTOR))
    mixed.bitwise_xor_((mixed >> 16).bitwise_and_(0xFFFF))
    return mixed.bitwise_right_shift_(32 - RANDOM_BITS).bitwise_and_((1 << RANDOM_BITS) - 1)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


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
