"""Conv-M: a convolution, a dilated convolution and a deconvolution side by side, their outputs as channels.

Wu, Wen, Afzal, Zhang, Chen, Li: A Compact DNN: Approaching GoogLeNet-Level Accuracy of Classification and Domain
Adaptation, CVPR 2017: more diverse features for the same parameters. The dilated branch sees 5x5 pixels by 3x3 weights.
Departs from the paper: of which only the abstract and a summary could be read: the 1x1 convolutions before the
branches, batch normalization and the deconvolution's stride are chosen here. At stride 1 a deconvolution is an ordinary
convolution in other words (the kernel turned by 180 degrees), so the default goes to half resolution and back.
"""

from collections.abc import Sequence
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument


class Branch(Enum):
    """What a branch of Conv-M does, after its 1x1 convolution; all have as many parameters."""

    CONV = "conv"
    DILATED = "dilated"
    DECONV = "deconv"
    """To half resolution by averages, and back by a deconvolution of stride 2."""
    DECONV_STRIDE_1 = "deconv-stride-1"
    """Has the functions of CONV, and another order of weights."""


CONV_M = (Branch.CONV, Branch.DILATED, Branch.DECONV)


class HalfAndBack(nn.Module):
    """Averages of 2x2 pixels, then a deconvolution of 3x3 and stride 2 that gives the size back, odd ones as well.

    Args:
        channels: of the input.
        out_channels: of the output.

    Example:
        >>> HalfAndBack(4, 6)(torch.zeros(1, 4, 7, 8)).shape
        torch.Size([1, 6, 7, 8])
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.AvgPool2d(2, ceil_mode=True)
        self.back = nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """Features of the same height and width."""
        height, width = features.shape[2:]
        return self.back(self.down(features))[:, :, :height, :width]


class ConvM(nn.Module):
    """Branches `branches`, each a 1x1 convolution with ReLU and then what its kind says, and `norm` over all outputs.

    Args:
        channels: of the input.
        reduced: channels after a branch's 1x1 convolution.
        width: outputs of a branch; the module has as many for each branch.
        branches: their kinds.

    Raises:
        InvalidArgument: where there is no branch.

    Example:
        >>> module = ConvM(64, 32, 48)
        >>> module(torch.zeros(1, 64, 8, 8)).shape, sum(p.numel() for p in module.parameters())
        (torch.Size([1, 144, 8, 8]), 48096)
    """

    def __init__(self, channels: int, reduced: int, width: int, branches: Sequence[Branch] = CONV_M) -> None:
        super().__init__()
        if not branches:
            raise InvalidArgument("branches: Conv-M expected at least one, got none")
        self.branches = nn.ModuleList(_branch(kind, channels, reduced, width) for kind in branches)
        self.norm = nn.BatchNorm2d(len(branches) * width)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """Features of the same height and width."""
        return torch.relu(self.norm(torch.cat([branch(features) for branch in self.branches], 1)))


def _branch(kind: Branch, channels: int, reduced: int, width: int) -> nn.Sequential:
    wide: nn.Module = {
        Branch.CONV: lambda: nn.Conv2d(reduced, width, 3, padding=1, bias=False),
        Branch.DILATED: lambda: nn.Conv2d(reduced, width, 3, padding=2, dilation=2, bias=False),
        Branch.DECONV: lambda: HalfAndBack(reduced, width),
        Branch.DECONV_STRIDE_1: lambda: nn.ConvTranspose2d(reduced, width, 3, padding=1, bias=False),
    }[kind]()
    return nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU(), wide)
