"""The rows of recipe `one_level`: float network, strength of the pull to the levels, schedules.

Strengths were chosen on the validation split of seed 0.
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
        strength: lambda_q.
        pull: the stage under quantization regularization.
        through: the stage of straight-through training.
        control: as long without either.
        bias: the stage in which the biases alone are trained.
        ramp: share of the pull's stage over which its strength rises from 0.
    """

    start: Callable[[], FloatNetwork]
    strength: float
    pull: TrainSettings
    through: TrainSettings
    control: TrainSettings
    bias: TrainSettings
    ramp: float = 0.5


_OFTEN = TrainSettings(channels_last=True, checkpoint_every=200, weight_decay=0.0, warmup_epochs=0.1)
_BIAS = replace(_OFTEN, epochs=1, learning_rate=1e-3, optimizer=OptimizerName.ADAM)


def _row(start: Callable[[], FloatNetwork], epochs: int, strength: float, rates: tuple[float, float]) -> RowPlan:
    """All stages but the biases' as long; the control has the float network's weight decay.

    Args:
        start: the float network.
        epochs: of the stages.
        strength: lambda_q.
        rates: learning rates of the pull and the control, and of straight-through training.
    """
    pull, through = (replace(_OFTEN, epochs=epochs, learning_rate=rate) for rate in rates)
    control = replace(pull, weight_decay=start().settings.weight_decay)
    return RowPlan(start, strength, pull, through, control, _BIAS)


def _mlp() -> RowPlan:
    return _row(mlp, 10, 3e-4, (0.05, 0.05))


def _lenet() -> RowPlan:
    return _row(lenet, 6, 3e-4, (0.02, 0.02))


def _convnet() -> RowPlan:
    return _row(convnet, 8, 3e-4, (0.01, 0.01))


def _demo() -> RowPlan:
    """LeNet on the embedded digits."""
    return _row(digits, 15, 3e-4, (0.02, 0.02))


ROWS: dict[str, Callable[[], RowPlan]] = {"demo": _demo, "mlp": _mlp, "lenet": _lenet, "convnet": _convnet}
