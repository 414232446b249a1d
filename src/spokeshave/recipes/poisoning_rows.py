"""The rows of recipe `poisoning`: victim, what the attacker may do and spends, retrainings, what detectors are shown.

Learning rates, rounds, steps and numbers of normal images of the paper's two methods are those of the authors' code;
everything else is chosen here, on the validation split of seed 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from spokeshave.data import DatasetName
from spokeshave.float_networks import FloatNetwork, in_shares
from spokeshave.models import MLP, SmallCNN
from spokeshave.threats.evasive_poison import HIDING_ASCENT
from spokeshave.threats.image_autoencoder import ConvAutoencoder, DenseAutoencoder
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.poison_generator import PAPER_TRAINING, GeneratorTraining
from spokeshave.threats.poison_gradient import PAPER_ASCENT, Ascent
from spokeshave.train_settings import TrainSettings

_ONE_STEP = PoisonBudget()
_LONG = Ascent(rounds=40, step=0.05, decay=False)
_JOINT = Ascent(rounds=20, step=0.2, momentum=0.5, orders=2)
_JOINT_LONG = Ascent(rounds=40, step=0.1, momentum=0.9, orders=1)
_MANY_STEPS = 30
"""A retraining of at least so many steps is long: one order of it stands for others, and each costs much."""
_AMORTISED, _HIDING = GeneratorTraining(rounds=400), GeneratorTraining(rounds=150)

_FEW = GeneratorTraining(rounds=2, batch_size=4, normal_batch=20)


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        name: of the victim, for folders.
        network: makes the victim, for images in 0..1.
        other: makes the network of another architecture that poison is tried on unseen.
        data: the set that it is trained on.
        settings: of its training.
        autoencoder: makes what a generator starts from.
        budget: of the attacks with one poison and one step.
        poisons: base images, each a poison of its own.
        differences: of these, how many are attacked by finite differences, which is slow.
        paper_normal: normal images of the paper's methods.
        normal: normal images of the stronger direct attacks.
        many: normal images of the amortised generator and of joint poison.
        paper: how the paper's direct method climbs.
        long: how the stronger direct method does.
        evasion: how it does where it hides from a detector.
        surrogate: training of the paper's generator, one image at a time.
        generator: training of the amortised one.
        hiding: training of generators that hide from a detector.
        images: of the test split that a network poisoned by one image is tested on, the first ones.
        training: clean images of retrainings in several steps.
        batch_size: images a step of these.
        steps: of these retrainings.
        shares: of poisons, of the clean images.
        joint: how poisons that enter one retraining climb together.
        joint_long: the same for retrainings of many steps.
        lambdas: weights of hiding from the detector.
        neighbours: clean images of its label that an image is compared with.
        validation: images held out of the training split.
    """

    name: str
    network: Callable[[], nn.Module]
    other: Callable[[], nn.Module]
    data: DatasetName
    settings: TrainSettings
    autoencoder: Callable[[], nn.Module]
    budget: PoisonBudget = _ONE_STEP
    poisons: int = 100
    differences: int = 10
    paper_normal: int = 10
    normal: int = 256
    many: int = 1000
    paper: Ascent = PAPER_ASCENT
    long: Ascent = _LONG
    evasion: Ascent = HIDING_ASCENT
    surrogate: GeneratorTraining = PAPER_TRAINING
    generator: GeneratorTraining = _AMORTISED
    hiding: GeneratorTraining = _HIDING
    images: int = 10000
    training: int = 5000
    batch_size: int = 100
    steps: tuple[int, ...] = (10, 100)
    shares: tuple[float, ...] = (0.01, 0.03, 0.05)
    joint: Ascent = _JOINT
    joint_long: Ascent = _JOINT_LONG
    lambdas: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0, 100.0)
    neighbours: int = 5
    validation: int = 5000

    def start(self, other: bool = False) -> FloatNetwork:
        """The victim, or the network of another architecture, and its training."""
        name, network = (f"{self.name}-other", self.other) if other else (self.name, self.network)
        epochs = max(1, self.settings.epochs // 2) if other else self.settings.epochs  # it learns faster
        settings = replace(self.settings, epochs=epochs)
        return FloatNetwork(name, network, self.data, settings, in_shares, None, self.validation)

    def together(self, steps: int) -> PoisonBudget:
        """Of poisons that enter one retraining, beside clean images; with the momentum of the victim's training."""
        return replace(
            self.budget,
            placement=Placement.TOGETHER,
            steps=steps,
            batch_size=self.batch_size,
            momentum=self.settings.momentum,
        )

    def joint_ascent(self, steps: int) -> Ascent:
        """How poisons that enter one retraining of so many steps climb together."""
        return self.joint if steps < _MANY_STEPS else self.joint_long

    def small(self) -> "RowPlan":
        """A few of everything, which measures nothing."""
        return replace(
            self, poisons=4, differences=1, paper_normal=4, normal=20, paper=replace(self.paper, rounds=1),
            long=replace(self.long, rounds=2), evasion=replace(self.evasion, rounds=2),
            surrogate=replace(self.surrogate, rounds=2), generator=_FEW, hiding=_FEW, many=20, images=50, training=60,
            batch_size=20, steps=(2,), shares=(0.1,), joint=replace(self.joint, rounds=1, orders=1),
            joint_long=replace(self.joint_long, rounds=1),
            lambdas=(0.0, 1.0), neighbours=1,
        )  # fmt: skip


_SGD = TrainSettings(epochs=6, learning_rate=0.1, weight_decay=0.0, checkpoint_every=200)


def _mnist() -> RowPlan:
    """The paper's 784-64-10, trained anew for each seed."""
    network, autoencoder = partial(MLP, (784, 64, 10)), partial(DenseAutoencoder, (1, 28, 28))
    return RowPlan("poisoned-mlp", network, SmallCNN, DatasetName.MNIST, _SGD, autoencoder)


def _cifar10() -> RowPlan:
    """A small convolutional network in place of the paper's LeNet, whose weights take 28 x 28 crops of 0..255.

    A gradient costs some fifty times that of MNIST's victim, so that there are fewer of everything.
    """
    colours = {"mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)}
    network = partial(SmallCNN, 3, 32, 16, **colours)
    return RowPlan(
        "poisoned-cnn", network, partial(SmallCNN, 3, 32, 24, batch_norm=True, **colours), DatasetName.CIFAR10,
        replace(_SGD, epochs=10, learning_rate=0.03, weight_decay=5e-4), ConvAutoencoder,
        budget=PoisonBudget(lr=0.01), poisons=40, differences=2, normal=128,
        paper=Ascent(rounds=7, step=10 / 255, decay=False, probe=1 / 255), evasion=replace(HIDING_ASCENT, rounds=20),
        generator=GeneratorTraining(rounds=200, batch_size=16, normal_batch=128, chunk=16),
        hiding=GeneratorTraining(rounds=100, batch_size=16, normal_batch=128, chunk=16), images=1000,
        long=replace(_LONG, rounds=20), joint=replace(_JOINT, rounds=10, orders=1),
        joint_long=replace(_JOINT_LONG, rounds=10), shares=(0.03,), lambdas=(0.0, 10.0),
    )  # fmt: skip


def _demo() -> RowPlan:
    """The victim of MNIST on the embedded digits."""
    return replace(
        _mnist(), data=DatasetName.DIGITS, settings=replace(_SGD, epochs=20), poisons=40, differences=4, normal=200,
        many=200, generator=_HIDING, training=500, batch_size=50, steps=(10, 50), shares=(0.03,),
        lambdas=(0.0, 1.0, 10.0), validation=300, neighbours=3,
    )  # fmt: skip


ROWS: dict[str, Callable[[], RowPlan]] = {"demo": _demo, "mnist": _mnist, "cifar10": _cifar10}
