"""Calls of layers against shapes worked out by hand; the model is left as it was."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.layer_calls import LayerCall, layer_calls, plain_transformers


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.idle = nn.Conv2d(1, 2, 3), nn.Linear(4, 4), nn.Linear(2, 2)
        self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.conv(x), output_size=(4, 5))
        return self.fc(self.fc(self.drop(x[..., :4])))


def test_calls_are_noted_in_order_and_nothing_is_left_behind():
    net = Net().train()
    net.conv.eval()
    random, layers = torch.get_rng_state(), dict(net.named_children())
    found = layer_calls(net, (torch.zeros(3, 1, 4, 4),), layers)
    assert found["conv"].calls == [LayerCall((3, 1, 4, 4), (3, 2, 2, 2))] and found["conv"].plainly
    assert found["fc"].calls == [LayerCall((3, 1, 4, 4), (3, 1, 4, 4))] * 2
    assert found["idle"].calls == [] and found["idle"].plainly
    assert not found["up"].plainly
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training and not net.conv.training and not any(m._forward_hooks for m in net.modules())


def test_parts_of_fused_transformer_layers_are_seen():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    found = layer_calls(encoder, (torch.zeros(2, 3, 8),), {"linear1": encoder.layers[0].linear1})
    assert found["linear1"].calls == [LayerCall((2, 3, 8), (2, 3, 16))]
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), plain_transformers():
        assert not torch.backends.mha.get_fastpath_enabled()
        _ = 1 / 0
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_a_model_that_fails_is_named():
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(InvalidArgument, match="Sequential fails on the example: RuntimeError"):
        layer_calls(net, (torch.zeros(1, 4),), {"0": net[0]})
    assert not net[0]._forward_hooks
