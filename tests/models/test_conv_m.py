"""Conv-M: what each branch sees, equal parameters, sizes, and that a deconvolution of stride 1 is a convolution."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.models.conv_m import Branch, ConvM, HalfAndBack


@pytest.mark.parametrize("side", [1, 2, 7, 8])
@pytest.mark.parametrize("branch", list(Branch))
def test_every_branch_keeps_the_size(branch: Branch, side: int) -> None:
    assert ConvM(6, 4, 5, [branch]).eval()(torch.rand(2, 6, side, side + 1)).shape == (2, 5, side, side + 1)


def test_all_branches_have_as_many_parameters() -> None:
    counts = {sum(p.numel() for p in ConvM(6, 4, 5, [branch]).parameters()) for branch in Branch}
    # 1x1: 6 x 4; normalization: 2 x 4; 3x3: 9 x 4 x 5; normalization of outputs: 2 x 5.
    assert counts == {24 + 8 + 180 + 10}


@pytest.mark.parametrize(
    ("branch", "reach"), [(Branch.CONV, {1}), (Branch.DILATED, {2}), (Branch.DECONV_STRIDE_1, {1})]
)
def test_what_a_branch_sees(branch: Branch, reach: set[int]) -> None:
    module = ConvM(1, 1, 1, [branch]).eval()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 1.0)
    images = torch.zeros(1, 1, 9, 9, requires_grad=True)
    module(images)[0, 0, 4, 4].backward()
    assert images.grad is not None
    rows, columns = (images.grad[0, 0].nonzero() - 4).abs().T.tolist()
    assert max(rows) == max(columns) and set(rows) | set(columns) == reach | {0}


def test_the_deconvolution_goes_to_half_resolution_and_back() -> None:
    module = HalfAndBack(2, 3)
    images = torch.rand(1, 2, 7, 8)
    halved = functional.avg_pool2d(images, 2, ceil_mode=True)
    assert halved.shape == (1, 2, 4, 4)
    back = functional.conv_transpose2d(halved, module.back.weight, stride=2, padding=1, output_padding=1)
    torch.testing.assert_close(module(images), back[:, :, :7, :8])


def test_at_stride_1_a_deconvolution_is_a_convolution_turned_round() -> None:
    deconvolution = nn.ConvTranspose2d(3, 4, 3, padding=1, bias=False)
    weight = deconvolution.weight.flip(2, 3).transpose(0, 1)
    images = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(deconvolution(images), functional.conv2d(images, weight, padding=1))


def test_no_branch_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least one, got none"):
        ConvM(3, 2, 2, [])
