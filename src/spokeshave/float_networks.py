"""Float networks that several recipes start from: what each is trained on and with.

The runs of a folder share them: `equal_budget.Course` trains one for each seed and finds it again by its budget. Rates
and lengths were chosen on the validation split.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from spokeshave.data import Augmentation, DatasetName, Normalization, Split, Splits
from spokeshave.equal_budget import Budget
from spokeshave.models import MLP, ConvNet, LeNet, ResNetCifar
from spokeshave.train_settings import TrainSettings

BATCH_SIZE, VALIDATION = 128, 5000
SMOKE_STEPS = 4


def scaled(split: Split) -> Normalization:
    """Grey levels times 1/256, as Caffe feeds LeNet."""
    return Normalization.scale_only(split.images.shape[1], 1 / 256)


def in_shares(split: Split) -> Normalization:
    """Grey levels as 0..1: the probabilities of spikes, and what attacks expect of images."""
    return Normalization.scale_only(split.images.shape[1], 1 / 255)


@dataclass(frozen=True)
class FloatNetwork:
    """A network, its data and its training.

    Attributes:
        name: for folders.
        network: makes the untrained network.
        data: the set that it is trained on.
        settings: of the training.
        normalize: makes, from the training images, what the network is fed.
        augment: of the training images.
        validation: images held out of the training split.
        batch_size: images a step.
    """

    name: str
    network: Callable[[], nn.Module]
    data: DatasetName
    settings: TrainSettings
    normalize: Callable[[Split], Normalization]
    augment: Augmentation | None = None
    validation: int = VALIDATION
    batch_size: int = BATCH_SIZE

    def budget(self, splits: Splits, smoke: bool = False) -> Budget:
        """The budget of the training.

        Args:
            splits: the data; statistics are of what the validation split leaves of the training split.
            smoke: a few steps only.
        """
        training, _ = splits.hold_out(min(self.validation, len(splits.train) // 5), seed=0)
        settings = replace(self.settings, steps=SMOKE_STEPS) if smoke else self.settings
        batch_size = min(self.batch_size, len(training)) if smoke else self.batch_size
        return Budget(
            self.name, self.network, settings, batch_size, self.normalize(training), self.augment, self.validation
        )


_OFTEN = TrainSettings(channels_last=True, checkpoint_every=200)


def lenet() -> FloatNetwork:
    """Caffe's LeNet on MNIST, ten epochs."""
    settings = replace(_OFTEN, epochs=10, learning_rate=0.03, warmup_epochs=0.5)
    return FloatNetwork("lenet", LeNet, DatasetName.MNIST, settings, scaled, Augmentation(pad=1))


def mlp() -> FloatNetwork:
    """784-500-300-10 on MNIST, twelve epochs."""
    settings = replace(_OFTEN, epochs=12, learning_rate=0.1, warmup_epochs=0.5)
    return FloatNetwork("mlp", MLP, DatasetName.MNIST, settings, scaled, Augmentation(pad=1))


def convnet() -> FloatNetwork:
    """Caffe's cifar10_full on CIFAR-10, twelve epochs, without augmentation as the original."""
    settings = replace(_OFTEN, epochs=12, learning_rate=0.02, weight_decay=2e-3, warmup_epochs=1)
    network = partial(ConvNet, activation_scale=63.0)
    return FloatNetwork("convnet", network, DatasetName.CIFAR10, settings, Normalization.per_channel)


def resnet20() -> FloatNetwork:
    """ResNet-20 on CIFAR-10, eight epochs."""
    settings = replace(_OFTEN, epochs=8, learning_rate=0.1, weight_decay=5e-4, warmup_epochs=0.5)
    augment = Augmentation(pad=4, flip=True)
    return FloatNetwork("resnet20", ResNetCifar, DatasetName.CIFAR10, settings, Normalization.per_channel, augment)


def digits() -> FloatNetwork:
    """LeNet on the embedded digits, for demonstrations."""
    settings = replace(_OFTEN, epochs=20, learning_rate=0.03, warmup_epochs=0.5)
    return FloatNetwork("digits", LeNet, DatasetName.DIGITS, settings, scaled, Augmentation(pad=1), validation=300)
