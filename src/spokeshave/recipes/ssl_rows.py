"""The plans behind the rows of recipe `ssl`: network, penalty, counts to keep, schedules.

Strengths are for the proximal solver with the authors' sqrt(group size) weighting, chosen on a validation split.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from spokeshave.data import Augmentation, DatasetName, Normalization, Split
from spokeshave.models import MLP, ConvNet, LeNet, ResNetCifar
from spokeshave.regularizers import GroupLasso
from spokeshave.shaping import Plan
from spokeshave.structures.groups import GroupKind
from spokeshave.structures.truncation import Keep, KeepBlocks
from spokeshave.train_settings import Precision, TrainSettings

FILTER, CHANNEL, SHAPE, LAYER = GroupKind.FILTER, GroupKind.CHANNEL, GroupKind.SHAPE, GroupKind.LAYER
_FAST = TrainSettings(precision=Precision.BFLOAT16, channels_last=True)


def _grey(split: Split) -> Normalization:
    """Scale by 1/256, as Caffe's LeNet does."""
    return Normalization.scale_only(split.images.shape[1], 1 / 256)


def _mnist_plan(
    network: Callable[[], nn.Module],
    pull: Callable[[nn.Module], GroupLasso],
    keeps: Sequence[Keep],
    epochs: tuple[int, int, int],
    rate: float,
) -> tuple[Plan, DatasetName]:
    baseline = replace(_FAST, epochs=epochs[0], learning_rate=rate, warmup_epochs=0.5)
    return Plan(
        network=network,
        pull=pull,
        baseline=baseline,
        ssl=replace(baseline, epochs=epochs[1], learning_rate=rate / 2, weight_decay=0.0),
        finetune=replace(baseline, epochs=epochs[2], learning_rate=rate / 2),
        keeps=keeps,
        augment=Augmentation(pad=1),
        normalize=_grey,
    ), DatasetName.MNIST


def _lenet_filters(conv1: int, conv2: int, channels: int, strength: float, factor: float) -> tuple[Plan, DatasetName]:
    """Table 1: filters of both convolutions, channels of the second."""
    amount = strength * factor
    keeps = [Keep("conv1", FILTER, conv1), Keep("conv2", CHANNEL, channels), Keep("conv2", FILTER, conv2)]
    if conv1 == channels:  # the same neurons on both sides
        keeps = [Keep("conv1", FILTER, conv1, "conv2"), Keep("conv2", FILTER, conv2)]

    def pull(net: nn.Module) -> GroupLasso:
        return GroupLasso(net, filters=amount, channels={"conv2": amount})

    return _mnist_plan(LeNet, pull, keeps, (10, 8, 15), 0.03)


def _lenet_shapes(conv1: int, conv2: int, strength: float, factor: float) -> tuple[Plan, DatasetName]:
    """Table 2: columns of both lowered matrices."""
    keeps = [Keep("conv1", SHAPE, conv1), Keep("conv2", SHAPE, conv2)]
    return _mnist_plan(LeNet, lambda net: GroupLasso(net, shapes=strength * factor), keeps, (10, 8, 15), 0.03)


def _mlp(neurons: tuple[int, int, int], strength: float, factor: float) -> tuple[Plan, DatasetName]:
    """Figure 4: inputs and both hidden layers; rows and columns, of the last layer columns only."""
    amount = strength * factor
    keeps = [
        Keep("ip1", CHANNEL, neurons[0]),
        Keep("ip1", FILTER, neurons[1], "ip2"),
        Keep("ip2", FILTER, neurons[2], "ip3"),
    ]

    def pull(net: nn.Module) -> GroupLasso:
        return GroupLasso(net, rows={"ip1": amount, "ip2": amount}, columns=amount)

    return _mnist_plan(MLP, pull, keeps, (12, 10, 15), 0.1)


def _convnet(
    filters: tuple[int, int, int], columns: tuple[int, int], strength: float, factor: float
) -> tuple[Plan, DatasetName]:
    """Table 3: rows and columns of the lowered matrices; dropout under the pull, as the authors."""
    amount = strength * factor
    # Columns are counted among those that still have an input: one that reads a dead filter is no column kept.
    keeps = [
        Keep(f"conv{i}", FILTER, count, follower)
        for i, (count, follower) in enumerate(zip(filters, ("conv2", "conv3", None), strict=True), start=1)
    ]
    keeps += [Keep(f"conv{i}", SHAPE, count) for i, count in enumerate(columns, start=2)]
    baseline = replace(_FAST, epochs=40, learning_rate=0.02, weight_decay=2e-3, warmup_epochs=1)
    return Plan(
        network=partial(ConvNet, activation_scale=63.0),
        pull=lambda net: GroupLasso(net, filters=amount, shapes={"conv2": amount, "conv3": amount}),
        baseline=baseline,
        ssl=replace(baseline, epochs=10, learning_rate=0.01),
        finetune=replace(baseline, epochs=66, learning_rate=0.05),
        keeps=keeps,
        dropout=0.5,
    ), DatasetName.CIFAR10


def _resnet20(layers: int, strength: float, factor: float) -> tuple[Plan, DatasetName]:
    """Figure 5: every convolution of a block is one group, not weighted by size, as the authors do."""
    blocks = tuple(
        (f"group{group}.{block}.conv1", f"group{group}.{block}.conv2") for group in (1, 2, 3) for block in (0, 1, 2)
    )
    baseline = replace(_FAST, epochs=16, learning_rate=0.1, weight_decay=5e-4, warmup_epochs=0.5)
    return Plan(
        network=lambda: ResNetCifar(20),
        pull=lambda net: GroupLasso(net, depth=dict.fromkeys(sum(blocks, ()), strength * factor), weighting=False),
        baseline=baseline,
        ssl=replace(baseline, epochs=6, learning_rate=0.05),
        finetune=replace(baseline, epochs=8, learning_rate=0.05),
        keeps=[KeepBlocks(blocks, (layers - 2) // 2)],
        augment=Augmentation(pad=4, flip=True),
    ), DatasetName.CIFAR10


def _demo(factor: float) -> tuple[Plan, DatasetName]:
    """LeNet on the embedded digits; keeps what the pull leaves."""
    baseline = TrainSettings(epochs=15, learning_rate=0.02)
    return Plan(
        network=LeNet,
        pull=lambda net: GroupLasso(net, filters=0.01, shapes=0.01, rows={"ip1": 0.003}, strength=factor),
        baseline=baseline,
        ssl=replace(baseline, epochs=25, weight_decay=0.0),
        finetune=replace(baseline, epochs=10, learning_rate=0.01),
        batch_size=32,
        normalize=_grey,
    ), DatasetName.DIGITS


ROWS: dict[str, Callable[[float], tuple[Plan, DatasetName]]] = {
    "demo": _demo,
    "lenet-2": partial(_lenet_filters, 5, 19, 4, 0.003),
    "lenet-3": partial(_lenet_filters, 3, 12, 3, 0.003),
    "lenet-4": partial(_lenet_shapes, 21, 41, 0.003),
    "lenet-5": partial(_lenet_shapes, 7, 14, 0.003),
    "mlp-2": partial(_mlp, (469, 294, 166), 0.0001),
    "mlp-3": partial(_mlp, (434, 174, 78), 0.0001),
    "convnet-2": partial(_convnet, (16, 23, 63), (325, 519), 0.001),
    "convnet-3": partial(_convnet, (22, 32, 63), (457, 721), 0.0005),
    "resnet20-18": partial(_resnet20, 18, 0.007),
    "resnet20-14": partial(_resnet20, 14, 0.007),
}
