"""Networks of the papers, by the papers' definitions."""

from spokeshave.models.alexnet import AlexNet as AlexNet
from spokeshave.models.cifarnet import AcrossChannelNorm as AcrossChannelNorm
from spokeshave.models.cifarnet import CifarNet as CifarNet
from spokeshave.models.convnet import ConvNet as ConvNet
from spokeshave.models.convnet import WithinChannelNorm as WithinChannelNorm
from spokeshave.models.lenet import LeNet as LeNet
from spokeshave.models.mlp import MLP as MLP
from spokeshave.models.resnet_cifar import ResNetCifar as ResNetCifar
from spokeshave.models.small_cnn import SmallCNN as SmallCNN

__all__ = [
    "MLP",
    "AcrossChannelNorm",
    "AlexNet",
    "CifarNet",
    "ConvNet",
    "LeNet",
    "ResNetCifar",
    "SmallCNN",
    "WithinChannelNorm",
]
