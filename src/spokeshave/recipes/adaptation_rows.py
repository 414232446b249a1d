"""The rows of recipe `adaptation`: two domains, what is trained on them, and how.

The paper's rates, lengths and weights of the terms could not be read; how these were chosen is told in the
documentation of the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from torch import nn

from spokeshave.adaptation.adaptation_objective import Term, Terms
from spokeshave.data import Augmentation, DatasetName
from spokeshave.data.normalization import Normalization
from spokeshave.errors import InvalidArgument
from spokeshave.float_networks import FloatNetwork
from spokeshave.models import AlexNet, CompactNet, GoogLeNet, LeNet, SmallCNN, SqueezeNet
from spokeshave.recipes.adaptation_forms import Form
from spokeshave.train_settings import OptimizerName, TrainSettings

_FORMS = {64: 224}
"""Pixels of images -> the size of the form that they are fed to."""
_DROPOUT = 0.1
"""Of all but the small network, less than is published: short trainings underfit."""


class NetworkName(Enum):
    """Networks that are adapted. For 64 pixels they keep the strides of their form for 224: a quarter of the work."""

    SMALL = "small"
    """Two convolutions and two linear layers, with batch normalization."""
    LENET = "lenet"
    """Caffe's, without normalization; for 28 pixels."""
    COMPACT = "compact"
    GOOGLENET = "googlenet"
    SQUEEZENET = "squeezenet"
    ALEXNET = "alexnet"

    def make(self, classes: int, size: int) -> nn.Module:
        """The untrained network for colour images.

        Raises:
            InvalidArgument: where it does not take images of that size.
        """
        if self is NetworkName.LENET:
            if size != 28:
                raise InvalidArgument(f"network: lenet takes images of 28 pixels, those of this row have {size}")
            return LeNet(classes, 3)
        if self is NetworkName.SMALL:
            return SmallCNN(3, size, 32, 128, classes, batch_norm=True)
        if self is NetworkName.ALEXNET:
            return AlexNet(classes, size=size, dropout=_DROPOUT)
        size = _FORMS.get(size, size)
        if self is NetworkName.SQUEEZENET:
            return SqueezeNet(classes, size, dropout=_DROPOUT, batch_norm=True)
        kind = {NetworkName.COMPACT: CompactNet, NetworkName.GOOGLENET: GoogLeNet}[self]
        return kind(classes, size, dropout=_DROPOUT)


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
        per_image: each image is fed with mean 0 and deviation 1 of its own, in place of those of a set.
        pretraining: of the network, on Tiny ImageNet; None for none.
        form: in which the network is adapted.
        recovery: on Tiny ImageNet once more, after the compression of a pretrained network; None for none.
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
    per_image: bool = False
    pretraining: TrainSettings | None = None
    form: Form = Form.DENSE
    recovery: TrainSettings | None = None
    probed: int = 500
    frozen: bool = False

    def pretrained(self, classes: int) -> FloatNetwork:
        """The network and its training on Tiny ImageNet, of so many classes as are there."""
        assert self.pretraining is not None
        return FloatNetwork(
            f"{self.network.value}-{self.size}", partial(self.network.make, classes, self.size),
            DatasetName.TINY_IMAGENET, self.pretraining, Normalization.per_channel,
            Augmentation(pad=self.size // 8, flip=True), 2000, 64,
        )  # fmt: skip


_DIGITS = TrainSettings(
    steps=1500, learning_rate=1e-3, optimizer=OptimizerName.ADAM, weight_decay=0.0, channels_last=True,
    checkpoint_every=500,
)  # fmt: skip
_SHAPES = Terms(adversarial=Term(0.3), mmd=Term(3.0), entropy=Term(1.0), diversity=Term(1.0))
"""Between handwritings answers may be trusted; where colours differ, in MNIST-M, sure ones are wrong too often."""
_UNEVEN = replace(_SHAPES, mmd=Term(1.0), diversity=Term(0.5))
"""USPS has twice as many of some digits as of others, so nothing should make its classes as frequent as MNIST's."""
_OFFICE = TrainSettings(
    steps=200, learning_rate=0.03, weight_decay=5e-4, slow=0.1, channels_last=True, checkpoint_every=200
)
_PRETRAINING = TrainSettings(
    epochs=4,
    learning_rate=1e-3,
    optimizer=OptimizerName.ADAMW,
    weight_decay=0.05,
    warmup_epochs=0.1,
    channels_last=True,
    checkpoint_every=200,
)
RATES = {NetworkName.ALEXNET: 3e-4}
"""Of pretraining, where it is another: without batch normalization."""


def _digits(source: DatasetName, target: DatasetName, steps: int, terms: Terms) -> RowPlan:
    settings = replace(_DIGITS, steps=steps)
    return RowPlan(source, target, NetworkName.SMALL, 28, settings, terms, augment=Augmentation(pad=2))


def _colours() -> RowPlan:
    settings = replace(_DIGITS, steps=3500)
    return RowPlan(DatasetName.MNIST, DatasetName.MNIST_M, NetworkName.SMALL, 28, settings, per_image=True)


def _office(source: DatasetName, target: DatasetName) -> RowPlan:
    return RowPlan(
        source, target, NetworkName.COMPACT, 64, _OFFICE, batch_size=32, augment=Augmentation(pad=8, flip=True),
        pretraining=_PRETRAINING, frozen=True,
    )  # fmt: skip


def _demo() -> RowPlan:
    """Embedded digits, and the same dimmed on a grey ground."""
    settings = replace(_DIGITS, epochs=6, steps=0)
    return RowPlan(DatasetName.DIGITS, None, NetworkName.SMALL, 28, settings, batch_size=32, probed=100)


_OFFICE_DOMAINS = {
    "amazon": DatasetName.AMAZON, "caltech": DatasetName.CALTECH10, "dslr": DatasetName.DSLR,
    "webcam": DatasetName.WEBCAM,
}  # fmt: skip

ROWS: dict[str, Callable[[], RowPlan]] = {
    "demo": _demo,
    "mnist-usps": partial(_digits, DatasetName.MNIST, DatasetName.USPS, 800, _UNEVEN),
    "usps-mnist": partial(_digits, DatasetName.USPS, DatasetName.MNIST, 1500, _SHAPES),
    "mnist-mnistm": _colours,
    **{
        f"{first}-{second}": partial(_office, _OFFICE_DOMAINS[first], _OFFICE_DOMAINS[second])
        for first in _OFFICE_DOMAINS
        for second in _OFFICE_DOMAINS
        if first != second
    },
}
