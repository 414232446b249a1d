"""The rows of recipe `one_level`: float network, strength of the pull to the levels, schedules.

Strength and rates were chosen for the MLP, on the validation split of seed 0; the other rows take the same rule.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from spokeshave.float_networks import FloatNetwork, convnet, digits, lenet, mlp
from spokeshave.train_settings import OptimizerName, TrainSettings


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        start: the float network.
        strength: lambda_q at the end of its rise, in units of g.
        pull: the stage under quantization regularization.
        through: the stage of straight-through training.
        control: as long without either.
        bias: the stage in which the biases alone are trained.
        ramp: share of the pull's stage over which its strength rises.
    """

    start: Callable[[], FloatNetwork]
    strength: float
    pull: TrainSettings
    through: TrainSettings
    control: TrainSettings
    bias: TrainSettings
    ramp: float = 1.0


_OFTEN = TrainSettings(channels_last=True, checkpoint_every=200, weight_decay=0.0, warmup_epochs=0.1)
_BIAS = replace(_OFTEN, epochs=1, learning_rate=1e-3, optimizer=OptimizerName.ADAM)


def _row(start: Callable[[], FloatNetwork], epochs: int, strength: float) -> RowPlan:
    """All stages but the biases' are as long, with the float network's rate; the control has its weight decay too.

    Args:
        start: the float network.
        epochs: of the stages.
        strength: lambda_q at the end.
    """
    stage = replace(_OFTEN, epochs=epochs, learning_rate=start().settings.learning_rate)
    control = replace(stage, weight_decay=start().settings.weight_decay)
    return RowPlan(start, strength, stage, stage, control, _BIAS)


def _mlp() -> RowPlan:
    return _row(mlp, 10, 1.0)


def _lenet() -> RowPlan:
    return _row(lenet, 6, 1.0)


def _convnet() -> RowPlan:
    return _row(convnet, 8, 1.0)


def _demo() -> RowPlan:
    """LeNet on the embedded digits."""
    return _row(digits, 15, 1.0)


ROWS: dict[str, Callable[[], RowPlan]] = {"demo": _demo, "mlp": _mlp, "lenet": _lenet, "convnet": _convnet}
