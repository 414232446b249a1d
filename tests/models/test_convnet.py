"""ConvNet: shapes of Table 3's matrices, and the within-channel norm against a loop over pixels."""

import pytest
import torch

from spokeshave.models import ConvNet, WithinChannelNorm


def test_shapes_of_the_lowered_matrices():
    net = ConvNet()
    shapes = [tuple(net.get_submodule(f"conv{i}").weight.flatten(1).shape) for i in (1, 2, 3)]
    assert shapes == [(32, 75), (32, 800), (64, 800)]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_within_channel_norm_is_caffes_formula():
    x = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    got = WithinChannelNorm(alpha=0.7, beta=0.75)(x)
    for c in range(2):
        for row in range(4):
            for column in range(5):
                window = x[0, c, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                scale = (1 + 0.7 / 9 * window.square().sum()) ** -0.75
                assert got[0, c, row, column].item() == pytest.approx((x[0, c, row, column] * scale).item(), rel=1e-5)


def test_activation_scale_gives_the_same_function_of_scaled_inputs():
    torch.manual_seed(0)
    scaled, plain = ConvNet(activation_scale=50.0).eval(), ConvNet().eval()
    plain.load_state_dict(scaled.state_dict())
    x = torch.randn(1, 3, 8, 8)
    assert torch.allclose(scaled.norm1(x) * 50, plain.norm1(x * 50), rtol=1e-4)
