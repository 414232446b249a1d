"""The rows of recipe `mat`: what is trained on which strengths, and how robustness is measured.

Networks, strengths and lengths are chosen here: of the paper only abstracts could be read. Rates, lengths and attacks
were chosen on the validation split.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from spokeshave.data import Augmentation, DatasetName
from spokeshave.float_networks import FloatNetwork, in_shares
from spokeshave.models import SmallCNN
from spokeshave.threats.attack_guard import Guard
from spokeshave.threats.autoattack import STANDARD, Part
from spokeshave.threats.gradient_attack import InnerAttack
from spokeshave.train_settings import OptimizerName, TrainSettings


@dataclass(frozen=True)
class RowPlan:
    """One row.

    Attributes:
        name: of the network, for folders.
        network: makes the untrained network, for images in 0..1.
        data: the set that it is trained on.
        strengths: that members are trained on, L-inf, in shares of the range of a pixel.
        tested: strengths that accuracies are measured at, beside 0.
        settings: of every training.
        inner: attack that networks are trained on.
        weights: how often mixed MAT draws each strength; empty for evenly.
        gap: of accuracies between FGSM and PGD from which on the guard acts, about once an epoch; 0 for no guard.
        batch_size: clean images a step.
        augment: of the training images.
        validation: images held out of the training split.
        images: of the test split that FGSM and PGD attack, the first ones.
        judged: of these, the first that AutoAttack attacks; ensembles in the first seed only.
        pgd_steps: of the PGD that networks are judged by.
        parts: of AutoAttack; all of the standard but in a smoke run, as are `queries` of Square.
    """

    name: str
    network: Callable[[], nn.Module]
    data: DatasetName
    strengths: tuple[float, ...]
    tested: tuple[float, ...]
    settings: TrainSettings
    inner: InnerAttack = InnerAttack.PGD_4
    weights: tuple[float, ...] = ()
    gap: float = 0.2
    batch_size: int = 256
    augment: Augmentation | None = None
    validation: int = 5000
    images: int = 2000
    judged: int = 100
    pgd_steps: int = 20
    parts: tuple[Part, ...] = STANDARD
    queries: int = 5000

    def start(self) -> FloatNetwork:
        """The network and its training, without any attack."""
        return FloatNetwork(
            self.name, self.network, self.data, self.settings, in_shares, self.augment, self.validation, self.batch_size
        )

    def guard_every(self, steps_an_epoch: int) -> Guard | None:
        """The guard, looking once an epoch; up to the steps of PGD-4, so that networks cost the same."""
        return Guard(max(1, steps_an_epoch), self.gap, most=InnerAttack.PGD_4.attack().steps) if self.gap else None


_ADAM = TrainSettings(
    epochs=4, learning_rate=5e-3, optimizer=OptimizerName.ADAM, weight_decay=0.0, warmup_epochs=1.0,
    channels_last=True, checkpoint_every=200,
)  # fmt: skip


def _mnist() -> RowPlan:
    strengths, tested = (0.05, 0.1, 0.2, 0.3), (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    return RowPlan("small", SmallCNN, DatasetName.MNIST, strengths, tested, _ADAM, weights=(1.0, 1.0, 2.0, 6.0))


def _cifar10() -> RowPlan:
    network = partial(SmallCNN, 3, 32, mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    strengths = tuple(one / 255 for one in (2, 4, 8, 12))
    tested = tuple(one / 255 for one in (2, 4, 6, 8, 10, 12))
    settings, augment = replace(_ADAM, learning_rate=4e-3), Augmentation(pad=4, flip=True)
    return RowPlan("small-colour", network, DatasetName.CIFAR10, strengths, tested, settings, augment=augment)


def _demo() -> RowPlan:
    """The same on the embedded digits."""
    return replace(
        _mnist(), data=DatasetName.DIGITS, settings=replace(_ADAM, epochs=12, warmup_epochs=2), batch_size=64,
        validation=300, images=300, judged=16, parts=(Part.APGD_CE, Part.APGD_T),
        strengths=(0.05, 0.1, 0.2), tested=(0.05, 0.1, 0.15, 0.2),
        weights=(1.0, 1.0, 2.0),
    )  # fmt: skip


def _paper_protocol(row: Callable[[], RowPlan]) -> RowPlan:
    """One step from the image itself, no guard: what the paper did, as far as its abstracts tell."""
    return replace(row(), inner=InnerAttack.FGSM, gap=0.0)


ROWS: dict[str, Callable[[], RowPlan]] = {
    "demo": _demo, "mnist": _mnist, "cifar10": _cifar10,
    "mnist-fgsm": partial(_paper_protocol, _mnist), "cifar10-fgsm": partial(_paper_protocol, _cifar10),
}  # fmt: skip
