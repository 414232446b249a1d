"""Step profile: how long a model's forward and backward pass take here, and when the first gradients are there.

What DDP hides communication behind is the part of the backward pass after its first bucket; here it is timed by hooks
on the parameters, in an own process, without communication.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spokeshave.communication.performance_model import StepProfile
from spokeshave.communication.wire_bytes import GradientSize
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.timing import using_threads

FIRST_BUCKET_BYTES = 1 << 20
BUCKET_BYTES = 25 << 20
"""DDP's own."""
_WARM_UP = 2
_CPU = torch.device("cpu")


def gradient_sizes(model: nn.Module) -> list[int]:
    """Elements of every parameter that is trained, in the model's order.

    Args:
        model: any.

    Example:
        >>> gradient_sizes(nn.Linear(3, 2))
        [6, 2]
    """
    return [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]


def bucket_count(sizes: list[int]) -> int:
    """Buckets that DDP makes of a model's gradients: the first of 1 MiB, the others of 25 MiB.

    Args:
        sizes: elements of each parameter, in the model's order; float32.

    Example:
        >>> bucket_count([100, 300_000]), bucket_count([300_000, 10]), bucket_count([7_000_000] * 3)
        (2, 1, 3)
    """
    buckets, held, limit = 0, 0, FIRST_BUCKET_BYTES
    for size in reversed(sizes):
        held += 4 * size
        if held >= limit:
            buckets, held, limit = buckets + 1, 0, BUCKET_BYTES
    return buckets + (held > 0)


def profile_step(
    model: nn.Module,
    input_shape: tuple[int, ...],
    images: int,
    device: torch.device = _CPU,
    min_numel: int = 1024,
    rounds: int = 5,
    threads: int | None = None,
) -> StepProfile:
    """Time forward, loss and backward on random images and classes.

    Args:
        model: takes a tensor and returns one score for each class, first of all; moved to the device, its weights are
            not changed.
        input_shape: of one image.
        images: of a batch, at least 1.
        device: to compute on.
        min_numel: tensors with fewer elements are never made ternary.
        rounds: medians of so many steps, at least 1.
        threads: of the CPU; none for as many as torch uses.

    Returns:
        the profile.

    Raises:
        InvalidArgument: nothing in the model is trained, or no images or rounds are asked for.
        UnsupportedLayer: the model does not run on such images, or does not return scores.
    """
    if images < 1 or rounds < 1:
        raise InvalidArgument(f"expected at least one image and one round, got {images} and {rounds}")
    sizes = gradient_sizes(model)
    if not sum(sizes):
        raise InvalidArgument(f"{type(model).__name__} has no parameters that are trained, so nothing is exchanged")
    model = model.to(device)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(images, *input_shape, generator=generator).to(device)
    modes = [(module, module.training) for module in model.modules()]
    clock = _FirstBucket(sum(sizes), device)
    handles = [
        parameter.register_post_accumulate_grad_hook(clock.arrived)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    taken = []
    try:
        model.train()
        with using_threads(threads or torch.get_num_threads()):
            taken = [_step(model, batch, clock) for _ in range(_WARM_UP + rounds)][_WARM_UP:]
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
        model.zero_grad(set_to_none=True)
    forward_s, first_s, backward_s = (statistics.median(column) for column in zip(*taken, strict=True))
    size = GradientSize.of(sizes, min_numel)
    return StepProfile(forward_s, backward_s, min(first_s, backward_s), images, size, bucket_count(sizes))


class _FirstBucket:
    """Notes when as many gradients are there as the first bucket holds."""

    def __init__(self, elements: int, device: torch.device) -> None:
        self.enough = min(FIRST_BUCKET_BYTES // 4, elements)
        self.synchronize: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.restart()

    def restart(self) -> None:
        self.seen, self.at = 0, 0.0

    def arrived(self, parameter: Tensor) -> None:
        before, self.seen = self.seen, self.seen + parameter.numel()
        if before < self.enough <= self.seen:
            self.at = self.now()

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter()


def _step(model: nn.Module, batch: Tensor, clock: _FirstBucket) -> tuple[float, float, float]:
    model.zero_grad(set_to_none=True)
    clock.restart()
    start = clock.now()
    try:
        scores = model(batch)
        scores = scores[0] if isinstance(scores, tuple) else scores
        if not isinstance(scores, Tensor) or scores.ndim < 2 or len(scores) != len(batch):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UnsupportedLayer(
                f"{type(model).__name__}: expected scores of shape [{len(batch)}, classes], got {got}; wrap the model "
                "in one that returns them"
            )
        classes = torch.zeros(len(batch), *scores.shape[2:], dtype=torch.long, device=batch.device)
        loss = nn.functional.cross_entropy(scores.float(), classes)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        shape = f"{len(batch)} x {'x'.join(map(str, batch.shape[1:]))}"
        raise UnsupportedLayer(f"{type(model).__name__} does not run on a batch of {shape}: {reason}") from error
    forward = clock.now()
    loss.backward()
    end = clock.now()
    return forward - start, (clock.at or end) - forward, end - forward
