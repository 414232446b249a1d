"""The rows of recipe `adaptation`: two domains, what is trained on them, and how.

Rates, lengths and weights of the terms were chosen on validation splits of the source and by label-free scores of the
target; the paper's could not be read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from torch import nn

from spokeshave.adaptation.adaptation_objective import Terms
from spokeshave.data import Augmentation, DatasetName
from spokeshave.data.normalization import Normalization
from spokeshave.float_networks import FloatNetwork
from spokeshave.models import AlexNet, CompactNet, GoogLeNet, SmallCNN, SqueezeNet
from spokeshave.recipes.adaptation_forms import Form
from spokeshave.train_settings import OptimizerName, TrainSettings

_FORMS = {64: 224}
"""Pixels of images -> the size of the form that they are fed to."""


class NetworkName(Enum):
    """Networks that are adapted. For 64 pixels all but AlexNet have the form for 224: a quarter of the work."""

    SMALL = "small"
    """Two convolutions and two linear layers, with batch normalization."""
    COMPACT = "compact"
    GOOGLENET = "googlenet"
    SQUEEZENET = "squeezenet"
    ALEXNET = "alexnet"

    def make(self, classes: int, size: int) -> nn.Module:
        """The untrained network for colour images."""
        if self is NetworkName.SMALL:
            return SmallCNN(3, size, 32, 128, classes, batch_norm=True)
        if self is NetworkName.ALEXNET:
            return AlexNet(classes, size=size)
        size = _FORMS.get(size, size)
        if self is NetworkName.SQUEEZENET:
            return SqueezeNet(classes, size, batch_norm=True)
        return {NetworkName.COMPACT: CompactNet, NetworkName.GOOGLENET: GoogLeNet}[self](classes, size)


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        source: the labelled domain; None for the embedded digits.
        target: the other one; None for the embedded digits, dimmed.
        network: that is adapted.
        size: height and width of images, in pixels.
        settings: of every training.
        terms: of the full method.
        batch_size: images of each domain a step.
        augment: of training images.
        pretraining: of the network, on Tiny ImageNet; None for none.
        form: in which the network is adapted.
        probed: images of each domain that features are compared on.
        frozen: what lies before the last pooling keeps its pretrained weights.
    """

    source: DatasetName
    target: DatasetName | None
    network: NetworkName
    size: int
    settings: TrainSettings
    terms: Terms = field(default_factory=Terms)
    batch_size: int = 64
    augment: Augmentation | None = None
    pretraining: TrainSettings | None = None
    form: Form = Form.DENSE
    probed: int = 500
    frozen: bool = False

    def pretrained(self, classes: int) -> FloatNetwork:
        """The network and its training on Tiny ImageNet, of so many classes as are there."""
        assert self.pretraining is not None
        settings = replace(self.pretraining, learning_rate=_RATES.get(self.network, self.pretraining.learning_rate))
        return FloatNetwork(
            f"{self.network.value}-{self.size}", partial(self.network.make, classes, self.size),
            DatasetName.TINY_IMAGENET, settings, Normalization.per_channel,
            Augmentation(pad=self.size // 8, flip=True), 2000,
        )  # fmt: skip


_DIGITS = TrainSettings(
    epochs=10, learning_rate=1e-3, optimizer=OptimizerName.ADAM, weight_decay=0.0, warmup_epochs=0.5,
    channels_last=True, checkpoint_every=200,
)  # fmt: skip
_OFFICE = TrainSettings(
    steps=200, learning_rate=0.01, weight_decay=5e-4, slow=0.1, channels_last=True, checkpoint_every=200
)
_PRETRAINING = TrainSettings(
    epochs=2, learning_rate=0.1, weight_decay=5e-4, warmup_epochs=0.5, channels_last=True, checkpoint_every=100
)
_RATES = {NetworkName.ALEXNET: 0.01}
"""Of pretraining, where it is another: without batch normalization."""


def _digits(source: DatasetName, target: DatasetName, epochs: int) -> RowPlan:
    return RowPlan(source, target, NetworkName.SMALL, 28, replace(_DIGITS, epochs=epochs))


def _office(source: DatasetName, target: DatasetName) -> RowPlan:
    return RowPlan(
        source, target, NetworkName.COMPACT, 64, _OFFICE, batch_size=32, augment=Augmentation(pad=8, flip=True),
        pretraining=_PRETRAINING, frozen=True,
    )  # fmt: skip


def _demo() -> RowPlan:
    """Embedded digits, and the same dimmed on a grey ground."""
    settings = replace(_DIGITS, epochs=6)
    return RowPlan(DatasetName.DIGITS, None, NetworkName.SMALL, 28, settings, batch_size=32, probed=100)


_OFFICE_DOMAINS = {
    "amazon": DatasetName.AMAZON, "caltech": DatasetName.CALTECH10, "dslr": DatasetName.DSLR,
    "webcam": DatasetName.WEBCAM,
}  # fmt: skip

ROWS: dict[str, Callable[[], RowPlan]] = {
    "demo": _demo,
    "mnist-usps": partial(_digits, DatasetName.MNIST, DatasetName.USPS, 5),
    "usps-mnist": partial(_digits, DatasetName.USPS, DatasetName.MNIST, 40),
    "mnist-mnistm": partial(_digits, DatasetName.MNIST, DatasetName.MNIST_M, 10),
    **{
        f"{first}-{second}": partial(_office, _OFFICE_DOMAINS[first], _OFFICE_DOMAINS[second])
        for first in _OFFICE_DOMAINS
        for second in _OFFICE_DOMAINS
        if first != second
    },
}
