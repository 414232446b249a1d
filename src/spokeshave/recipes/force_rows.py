"""The rows of recipe `force`: network, strength and kind of the force, error of the factorization, schedules.

Strengths and lengths were chosen on the validation split of seed 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from spokeshave.data import DatasetName
from spokeshave.float_networks import FloatNetwork, convnet, lenet, resnet20
from spokeshave.regularizers import Pull
from spokeshave.train_settings import TrainSettings


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        start: the float network.
        strength: lambda_s.
        kind: of the pull.
        whole: patterns of layers that are neither forced nor factorized.
        force: the stage under force, and the same without for the plain arm.
        finetune: the stage after the factorization.
        max_error: share of the squared norm of a layer that ranks are counted at.
        cut_error: share that the factorization may lose, before it is fine-tuned.
    """

    start: Callable[[], FloatNetwork]
    strength: float
    kind: Pull
    whole: tuple[str, ...]
    force: TrainSettings
    finetune: TrainSettings
    max_error: float = 0.05
    cut_error: float = 0.05


_OFTEN = TrainSettings(channels_last=True, checkpoint_every=200)


def _convnet() -> RowPlan:
    """All three convolutions of Caffe's cifar10_full."""
    stage = replace(_OFTEN, epochs=6, learning_rate=0.02, weight_decay=2e-3)
    return RowPlan(convnet, 2e-4, Pull.L2, ("ip*",), stage, replace(stage, epochs=4), cut_error=0.2)


def _resnet20() -> RowPlan:
    """Every convolution but the first and the shortcuts."""
    stage = replace(_OFTEN, epochs=4, learning_rate=0.05, weight_decay=5e-4)
    whole = ("conv1", "*.downsampling", "ip*")
    return RowPlan(resnet20, 1e-4, Pull.L2, whole, stage, replace(stage, epochs=3, learning_rate=0.02), cut_error=0.2)


def _demo() -> RowPlan:
    """LeNet on the embedded digits."""
    start = lenet()
    short = replace(start.settings, epochs=15, learning_rate=0.02)
    stage = replace(_OFTEN, epochs=15, learning_rate=0.02)
    return RowPlan(
        lambda: replace(start, data=DatasetName.DIGITS, settings=short, validation=200),
        1e-2, Pull.L2, ("ip*",), stage, replace(stage, epochs=8),
    )  # fmt: skip


ROWS: dict[str, Callable[[], RowPlan]] = {"demo": _demo, "convnet": _convnet, "resnet20": _resnet20}
