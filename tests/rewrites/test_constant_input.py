import pytest
import torch
from torch import nn

from spokeshave.rewrites import ConstantInput, PositionBias


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 4, 3, padding=2, stride=2),
        nn.Conv2d(3, 4, (3, 5), padding=(2, 1), dilation=(1, 2)),
        nn.Conv3d(3, 4, 3, padding=1),
        nn.ConvTranspose1d(3, 4, 4, stride=3, padding=1),
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    ],
)
def test_it_equals_a_constant_channel_of_the_whole_layer(layer):
    """Oracle: the layer with all three channels, the last of which holds 0.7."""
    transposed = "Transpose" in type(layer).__name__
    smaller = type(layer)(
        2, 4, layer.kernel_size, layer.stride, layer.padding, dilation=layer.dilation,
        **({"output_padding": layer.output_padding} if transposed else {}),
    )  # fmt: skip
    with torch.no_grad():
        smaller.weight.copy_(layer.weight[:2] if transposed else layer.weight[:, :2])
        smaller.bias.copy_(layer.bias)
        kernel = 0.7 * (layer.weight[2:] if transposed else layer.weight[:, 2:])
    folded = ConstantInput(smaller, kernel.detach(), (7,) * (layer.weight.ndim - 2))
    for length in (7, 10):
        x = torch.randn(2, 3, *[length] * (layer.weight.ndim - 2))
        x[:, 2] = 0.7
        torch.testing.assert_close(folded(x[:, :2]), layer(x), rtol=1e-4, atol=1e-5)


def test_a_position_bias_refuses_another_size():
    layer = PositionBias(nn.Conv2d(1, 2, 3), torch.zeros(1, 2, 4, 4))
    assert layer(torch.randn(3, 1, 6, 6)).shape == (3, 2, 4, 4)
    with pytest.raises(RuntimeError, match=r"expected a layer output of shape \(2, 4, 4\), got \(2, 5, 4\)"):
        layer(torch.randn(3, 1, 7, 6))
