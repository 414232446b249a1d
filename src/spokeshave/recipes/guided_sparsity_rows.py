"""The plans behind the rows of recipe `guided_sparsity`: network, penalty, target sparsity, schedules.

The machine is the one at hand, measured once a run; targets and strengths are checked on a validation split.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

from torch import nn

from spokeshave.data import Augmentation, DatasetName, Normalization
from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.models import ConvNet, LeNet, ResNetCifar
from spokeshave.processes import from_first, is_first
from spokeshave.regularizers import Guide, GuidedL1, MagnitudeSchedule, Regularizer
from spokeshave.shaping import Plan, Stretch
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.targets.cpu_sparse.roofline import measure_roofline
from spokeshave.train_settings import Precision, TrainSettings

NOMINAL = MachineRates(dense_flops_per_s=60e9, alpha=1.2, bytes_per_s=20e9)
"""One core with AVX-512: torch's dense convolutions of these sizes, our sparse ones, the shared cache. What is assumed
where nothing can be measured, and what runs were guided by that were begun before the machine was measured.
"""
_FAST = TrainSettings(precision=Precision.BFLOAT16, channels_last=True)


def machine_rates(images: int) -> MachineRates:
    """Rates of one core of this machine; nominal ones, with a warning, where no code can be generated on it.

    One core, since what several do together depends on who else is at work while they are measured.

    Args:
        images: at a time.

    Returns:
        those of the first process, in every process of a run.
    """
    rates = NOMINAL
    if is_first():
        try:
            rates = measure_roofline(threads=1, images=images).rates()
        except (InvalidArgument, JitRefused) as refusal:
            warnings.warn(f"{refusal}; the guide takes nominal rates of a machine", RuntimeWarning, stacklevel=2)
    return MachineRates(*from_first(astuple(rates)))


@dataclass(frozen=True)
class Pruning:
    """How a row prunes.

    Attributes:
        strength: lambda of the L1 pull.
        sparsity: share of zeros at the end, by a pattern on the layers' names; other layers stay dense.
        rates: of the machine that the network is for; measured on this one if none are given.
        batch: images at a time there.
    """

    strength: float
    sparsity: Mapping[str, float]
    rates: MachineRates | None = None
    batch: int = 16

    def __call__(self, network: nn.Module, stretch: Stretch) -> Sequence[Regularizer]:
        """The guided L1 pull, and the schedule that ends at the target after four fifths of the stage.

        The schedule's order counts: it prunes what the pull has shrunk.
        """
        steps = stretch.steps
        guide = Guide(
            network, stretch.example, self.rates or machine_rates(self.batch),
            batch=self.batch, every=max(1, steps // 40), judge_from=round(0.8 * steps), nominal=NOMINAL,
        )  # fmt: skip
        pull = GuidedL1(network, strength=self.strength, layers=dict.fromkeys(self.sparsity, 1.0), guide=guide)
        schedule = MagnitudeSchedule(
            network, self.sparsity, guide=guide,
            steps=max(1, round(0.6 * steps)), begin=round(0.2 * steps), every=max(1, min(50, steps // 20)),
        )  # fmt: skip
        return pull, schedule


def _resnet20(factor: float) -> tuple[Plan, DatasetName]:
    """Both convolutions of every block to a fifth; the first convolution, the projections and the classifier dense."""
    baseline = replace(_FAST, epochs=16, learning_rate=0.1, weight_decay=5e-4, warmup_epochs=0.5)
    return Plan(
        network=lambda: ResNetCifar(20),
        pull=None,
        prune=Pruning(5e-5 * factor, {"group*.conv*": 0.8}),
        baseline=baseline,
        ssl=replace(baseline, epochs=8, learning_rate=0.05),
        finetune=replace(baseline, epochs=8, learning_rate=0.05),
        augment=Augmentation(pad=4, flip=True),
    ), DatasetName.CIFAR10


def _convnet(factor: float) -> tuple[Plan, DatasetName]:
    """The first convolution to a half, the others to a fifth."""
    baseline = replace(_FAST, epochs=24, learning_rate=0.02, weight_decay=2e-3, warmup_epochs=1)
    return Plan(
        network=partial(ConvNet, activation_scale=63.0),
        pull=None,
        prune=Pruning(5e-5 * factor, {"conv1": 0.5, "conv2": 0.8, "conv3": 0.8}),
        baseline=baseline,
        ssl=replace(baseline, epochs=10, learning_rate=0.02),
        finetune=replace(baseline, epochs=16, learning_rate=0.03),
    ), DatasetName.CIFAR10


def _demo(factor: float) -> tuple[Plan, DatasetName]:
    """LeNet on the embedded digits."""
    baseline = TrainSettings(epochs=15, learning_rate=0.02)
    return Plan(
        network=LeNet,
        pull=None,
        prune=Pruning(1e-4 * factor, {"conv*": 0.8, "ip1": 0.9}),
        baseline=baseline,
        ssl=replace(baseline, epochs=15),
        finetune=replace(baseline, epochs=10, learning_rate=0.01),
        batch_size=32,
        normalize=lambda split: Normalization.scale_only(split.images.shape[1], 1 / 256),
    ), DatasetName.DIGITS


ROWS: dict[str, Callable[[float], tuple[Plan, DatasetName]]] = {
    "demo": _demo,
    "convnet": _convnet,
    "resnet20": _resnet20,
}
