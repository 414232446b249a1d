"""Network steps: the few kinds of work that the engine knows, and what it leaves to torch."""

from dataclasses import dataclass, field

import numpy as np
from torch import fx

from spokeshave.targets.cpu_sparse.plane_operations import Step
from spokeshave.targets.cpu_sparse.pooling import Windows
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight


@dataclass(frozen=True, eq=False)
class NetworkStep:
    """One piece of work.

    Attributes:
        layer: name of the module or node that it comes from.
        inputs: names of the values it reads.
        output: name of the value it makes.
    """

    layer: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, eq=False)
class Convolve(NetworkStep):
    """A 2-D convolution; a second input is added to the sums, then `rectify` cuts at 0."""

    weight: StoredWeight
    bias: np.ndarray
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    rectify: bool = False


@dataclass(frozen=True, eq=False)
class Multiply(NetworkStep):
    """A linear layer on flat features."""

    weight: StoredWeight
    bias: np.ndarray
    rectify: bool = False


@dataclass(frozen=True, eq=False)
class Chain(NetworkStep):
    """Elementwise steps; `scales` holds (factor, shift) of each plane, for `PlaneScale`."""

    steps: tuple[Step, ...]
    scales: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Pool(NetworkStep):
    """Largest or mean value of windows; `divisor` overrides what a mean divides by."""

    mean: bool
    rows: Windows
    columns: Windows
    include_padding: bool = True
    divisor: int | None = None


@dataclass(frozen=True, eq=False)
class Normalize(NetworkStep):
    """Local response normalization over neighbouring planes."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, eq=False)
class Softmax(NetworkStep):
    """Softmax over flat features, or over the planes of each pixel."""


@dataclass(frozen=True, eq=False)
class Concatenate(NetworkStep):
    """Planes of several inputs one after another."""


@dataclass(frozen=True, eq=False)
class Flatten(NetworkStep):
    """Planes to flat features."""


@dataclass(frozen=True, eq=False)
class Fallback(NetworkStep):
    """A node that torch runs; `why` says what about it the engine does not know."""

    node: fx.Node
    why: str


@dataclass
class NetworkSteps:
    """A network in order of execution.

    Attributes:
        steps: work, each after what it reads.
        shapes: value name -> shape without the batch axis.
        inputs: names of the arguments of forward.
        outputs: names of the values that somebody wants.
        aliases: name of a node that computes nothing -> name of the value that it passes on.
    """

    steps: list[NetworkStep]
    shapes: dict[str, tuple[int, ...]]
    inputs: list[str]
    outputs: list[str]
    aliases: dict[str, str] = field(default_factory=dict)
