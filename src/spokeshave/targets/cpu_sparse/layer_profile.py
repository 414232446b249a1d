"""Layer profile: the time of every step of a sparse network in place, where its input and its memory are as in a run.

An engine notes which operations belong to which step; a run that is looked at runs them step by step. Looking costs
about two microseconds a step.
"""

from dataclasses import dataclass

from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse.native_engine import ENTERING, LEAVING
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps
from spokeshave.targets.cpu_sparse.segment import Layout
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork
from spokeshave.timing import median_and_spread


@dataclass(frozen=True)
class Timing:
    """Seconds of one batch: the median of some samples, and the distance between their quartiles."""

    median_s: float
    spread_s: float
    samples: int

    @classmethod
    def of(cls, samples: list[float]) -> "Timing":
        """Summarize samples.

        Example:
            >>> Timing.of([1.0, 2.0, 3.0, 4.0, 5.0])
            Timing(median_s=3.0, spread_s=2.0, samples=5)
        """
        return cls(*median_and_spread(samples), len(samples))


@dataclass(frozen=True)
class StepTime:
    """One step of a network.

    Attributes:
        layer: name of the module or node that it ends with.
        kind: of work, such as 'Convolve'.
        output: name of the value that it makes.
        generated: whether it runs as generated code.
        time: of one batch.
    """

    layer: str
    kind: str
    output: str
    generated: bool
    time: Timing


def watched_run(network: SparseNetwork, inputs: tuple[object, ...], layout: Layout | None = None) -> dict[str, float]:
    """Run a network once.

    Args:
        network: of generated code.
        inputs: as its forward takes them.
        layout: for all images; none for whatever is fastest.

    Returns:
        output of a step -> seconds; `ENTERING` and `LEAVING`: bringing images into the layout, and results out of it.

    Raises:
        InvalidArgument: the network runs in torch.
    """
    if network.plain:
        raise InvalidArgument("expected a network of generated code, got one that runs plainly; set .plain = False")
    seconds: dict[str, float] = {}
    network.run(inputs, layout, seconds)
    return seconds


def profile(
    network: SparseNetwork, inputs: tuple[object, ...], repeats: int = 20, layout: Layout | None = None
) -> tuple[StepTime, ...]:
    """Time every step in place, on as many threads as torch uses.

    Args:
        network: of generated code.
        inputs: as its forward takes them.
        repeats: runs, at least 1.
        layout: for all images; none for whatever is fastest.

    Returns:
        the steps in order of execution.

    Raises:
        InvalidArgument: the network runs in torch, or fewer than one repeat.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import spokeshave as ss
        >>> network, _ = ss.to_sparse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.zeros(1, 1, 8, 8))
        >>> [step.kind for step in profile(network, (torch.zeros(1, 1, 8, 8),))]
        ['(entering)', 'Convolve', '(leaving)']
    """
    if repeats < 1:
        raise InvalidArgument(f"repeats: expected at least 1, got {repeats}")
    watched_run(network, inputs, layout)  # compiles what is missing, and warms up
    return summarize(network, [watched_run(network, inputs, layout) for _ in range(repeats)])


def summarize(network: SparseNetwork, runs: list[dict[str, float]]) -> tuple[StepTime, ...]:
    """The steps of a network with their times.

    Args:
        network: that ran.
        runs: what `watched_run` gave, each time.
    """
    steps: list[tuple[str, str, str, bool]] = []
    for piece in network.pieces:
        if isinstance(piece, NetworkSteps):
            steps += [(step.layer, type(step).__name__, step.output, True) for step in piece.steps]
        else:
            steps.append((piece.layer, "torch", piece.output, False))
    entering = [(ENTERING, ENTERING, ENTERING, True)] if ENTERING in runs[0] else []
    leaving = [(LEAVING, LEAVING, LEAVING, True)] if LEAVING in runs[0] else []
    return tuple(StepTime(*step, Timing.of([run[step[2]] for run in runs])) for step in [*entering, *steps, *leaving])
