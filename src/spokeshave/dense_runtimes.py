"""How much faster a network runs than another one in the best of torch's ways to run it."""

import copy
import warnings
from collections.abc import Mapping
from statistics import median

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.verification import relative_error
from spokeshave.timing import median_and_spread, time_in_turns

_TOLERANCE = 1e-4
"""Largest accepted difference, relative to the largest value."""


class _ChannelsLast(nn.Module):
    """A network in channels-last order; changing the images' order is part of its time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(memory_format=torch.channels_last))


def torch_forms(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """Ways to run a network in torch, by name; what does not give what the network gives is left out.

    Args:
        network: in eval mode, on the CPU; not modified.
        images: [images, channels, height, width], that it will be run on.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.compile needs a C++ compiler on the machine
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes that hints are checked against
        traced = torch.jit.trace(copy.deepcopy(network).eval(), images)
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        forms = {"eager": network, "channels last": _ChannelsLast(network), "frozen": frozen}
        wanted = network(images)
        # Torch's optimization gives other numbers for some networks (Caffe's cifar10_full among them).
        return {name: form for name, form in forms.items() if relative_error(form(images), wanted) < _TOLERANCE}


def times_as_fast(
    dense: nn.Module, others: Mapping[str, nn.Module], images: Tensor, threads: int = 1, repeats: int = 20
) -> dict[str, tuple[float, float]]:
    """Time networks in turns with the dense one in every form that torch has for it.

    Args:
        dense: the network compared against, in eval mode, on the CPU.
        others: networks, by any name, in eval mode.
        images: [images, channels, height, width].
        threads: of all.
        repeats: turns of each, at least 1.

    Returns:
        Name -> how many times as fast as the fastest form of `dense`: median over turns, and quartile distance.

    Raises:
        InvalidArgument: without networks to compare, or with fewer than one turn.

    Example:
        >>> net = nn.Conv2d(1, 2, 3).eval()
        >>> ratio, spread = times_as_fast(net, {"itself": net}, torch.zeros(2, 1, 8, 8), repeats=5)["itself"]
        >>> 0 < ratio < 100
        True
    """
    if not others or repeats < 1:
        raise InvalidArgument(f"expected networks to compare and at least 1 turn, got {len(others)} and {repeats}")
    forms = torch_forms(dense, images)
    times = time_in_turns([*forms.values(), *others.values()], (images,), threads, repeats, budget_s=10.0)
    best = min(times[: len(forms)], key=median)
    return {
        name: median_and_spread([a / b for a, b in zip(best, mine, strict=True)])
        for name, mine in zip(others, times[len(forms) :], strict=True)
    }
