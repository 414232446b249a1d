"""Networks of the papers, by the papers' definitions."""

from spokeshave.models.alexnet import AlexNet as AlexNet
from spokeshave.models.cifarnet import AcrossChannelNorm as AcrossChannelNorm
from spokeshave.models.cifarnet import CifarNet as CifarNet
from spokeshave.models.compact import CompactNet as CompactNet
from spokeshave.models.conv_m import Branch as Branch
from spokeshave.models.conv_m import ConvM as ConvM
from spokeshave.models.convnet import ConvNet as ConvNet
from spokeshave.models.convnet import WithinChannelNorm as WithinChannelNorm
from spokeshave.models.googlenet import GoogLeNet as GoogLeNet
from spokeshave.models.lenet import LeNet as LeNet
from spokeshave.models.mlp import MLP as MLP
from spokeshave.models.resnet_cifar import ResNetCifar as ResNetCifar
from spokeshave.models.small_cnn import SmallCNN as SmallCNN
from spokeshave.models.squeezenet import SqueezeNet as SqueezeNet

__all__ = [
    "MLP",
    "AcrossChannelNorm",
    "AlexNet",
    "Branch",
    "CifarNet",
    "CompactNet",
    "ConvM",
    "ConvNet",
    "GoogLeNet",
    "LeNet",
    "ResNetCifar",
    "SmallCNN",
    "SqueezeNet",
    "WithinChannelNorm",
]
