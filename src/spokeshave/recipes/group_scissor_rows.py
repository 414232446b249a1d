"""The rows of recipe `group_scissor`: network, ranks, errors of clipping, pull on the wires, schedules.

Errors, strengths and lengths were chosen on the validation split of seed 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from spokeshave.data import DatasetName
from spokeshave.float_networks import FloatNetwork, convnet, lenet
from spokeshave.regularizers import Pull
from spokeshave.rewrites.rank_clipping import Measured
from spokeshave.train_settings import Schedule, TrainSettings


@dataclass(frozen=True)
class Clipping:
    """How ranks fall.

    Attributes:
        max_error: share of the squared norm that one clip may lose, by layer.
        least: ranks that are not cut, by layer.
        every: steps between clips.
        until: share of the stage after which no rank falls, 0..1.
        measured: what the error is taken of.
    """

    max_error: Mapping[str, float]
    least: Mapping[str, int] = field(default_factory=dict)
    every: int = 100
    until: float = 0.5
    measured: Measured = Measured.PRODUCT


@dataclass(frozen=True)
class Forcing:
    """How filters are drawn together before their layers are factorized.

    Attributes:
        strength: lambda_s.
        layers: that are forced.
        kind: of the pull.
    """

    strength: float
    layers: Mapping[str, float]
    kind: Pull = Pull.L2


@dataclass(frozen=True)
class FrontPoint:
    """One network of the front of area against accuracy.

    Attributes:
        label: of its line.
        max_error: of every convolution that is factorized; linear layers may lose `LINEAR` times as much.
        forced: starts from the network that was trained under force.
        clipped: ranks fall while it is trained; otherwise they are cut once, before.
    """

    label: str
    max_error: float
    forced: bool
    clipped: bool


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        start: the float network.
        whole: layers that are not factorized: the classifier.
        ranks: the paper's, for the arm that is cut to them without training.
        clipping: how ranks fall.
        clip: the stage in which they do.
        wires: strength of the group lasso on wires.
        delete: each of the stages under it.
        keep: shares of the wires that may be left, 0..1, after each stage; the weakest go where the pull has left more.
        finetune: the last stage, deleted wires held at zero.
        forcing: of the front's networks.
        front: further networks, each a factorization of its own; none for most rows.
    """

    start: Callable[[], FloatNetwork]
    whole: tuple[str, ...]
    ranks: Mapping[str, int]
    clipping: Clipping
    clip: TrainSettings
    wires: float
    delete: TrainSettings
    keep: tuple[float, ...]
    finetune: TrainSettings
    forcing: Forcing | None = None
    front: tuple[FrontPoint, ...] = ()


LINEAR = 2.5
"""What linear layers of a front's networks may lose, in errors of its convolutions."""
_OFTEN = TrainSettings(channels_last=True, checkpoint_every=200)
_PULLED = replace(_OFTEN, schedule=Schedule.CONSTANT)
LENET_RANKS = {"conv1": 5, "conv2": 12, "ip1": 36}
CONVNET_RANKS = {"conv1": 12, "conv2": 19, "conv3": 22}


def _lenet() -> RowPlan:
    """Caffe's LeNet: 13.62 % of the area, then 8.1 % of the routing area."""
    return RowPlan(
        start=lenet,
        whole=("ip2",),
        ranks=LENET_RANKS,
        clipping=Clipping({"conv*": 0.05, "ip1": 0.12}, LENET_RANKS, until=0.6),
        clip=replace(_OFTEN, epochs=8, learning_rate=0.03, weight_decay=1e-3),
        wires=1e-4,
        delete=replace(_PULLED, epochs=1, learning_rate=0.02, weight_decay=1e-4),
        keep=(0.75, 0.6, 0.5, 0.42, 0.36, 0.32, 0.284),
        finetune=replace(_OFTEN, epochs=14, learning_rate=0.03, weight_decay=2e-4),
    )


def _convnet() -> RowPlan:
    """Caffe's cifar10_full: 51.81 % of the area, then 52.06 % of the routing area."""
    return RowPlan(
        start=convnet,
        whole=("ip1",),
        ranks=CONVNET_RANKS,
        clipping=Clipping({"conv1": 0.02, "conv2": 0.03, "conv3": 0.05}, CONVNET_RANKS, until=0.6),
        clip=replace(_OFTEN, epochs=6, learning_rate=0.02, weight_decay=2e-3),
        wires=1e-4,
        delete=replace(_PULLED, epochs=1, learning_rate=0.01, weight_decay=1e-3),
        keep=(0.9, 0.8, 0.72),
        finetune=replace(_OFTEN, epochs=6, learning_rate=0.02, weight_decay=2e-3),
    )


def _lenet_front() -> RowPlan:
    """Area against accuracy: rank clipping, force first, both."""
    ways = (("rank clipping", False, True), ("force, then cut", True, False), ("force, then clipping", True, True))
    plan = _lenet()
    return replace(
        plan,
        # A network that was just cut has large gradients: at the full rate, without these, its loss becomes NaN.
        clip=replace(plan.clip, epochs=4, warmup_epochs=0.5, clip_norm=2.0),
        clipping=replace(plan.clipping, least={}, every=200),
        forcing=Forcing(2e-4, {"conv*": 1.0, "ip1": 0.1}),  # five hundred filters pull harder; 1e-3 diverges
        front=tuple(
            FrontPoint(label, error, forced, clipped)
            for label, forced, clipped in ways
            for error in ((0.02, 0.04, 0.055, 0.07) if clipped else (0.05, 0.15, 0.22))
        ),
    )


def _demo() -> RowPlan:
    """LeNet on the embedded digits."""
    plan = _lenet()
    start = lenet()
    short = replace(start.settings, epochs=15, learning_rate=0.02)
    return replace(
        plan,
        start=lambda: replace(start, data=DatasetName.DIGITS, settings=short, validation=200),
        clip=replace(plan.clip, epochs=12),
        clipping=replace(plan.clipping, every=10),
        delete=replace(plan.delete, epochs=3),
        finetune=replace(plan.finetune, epochs=8),
    )


ROWS: dict[str, Callable[[], RowPlan]] = {
    "demo": _demo,
    "lenet": _lenet,
    "convnet": _convnet,
    "lenet-front": _lenet_front,
}
