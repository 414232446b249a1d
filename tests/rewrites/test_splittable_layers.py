"""Which layers may be split, and the reason that is given for each of the others."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.splittable_layers import (
    by_pattern,
    close_attention,
    open_attention,
    put_in_place,
    splittable_layers,
)
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.projected_attention import ProjectedAttention


class OwnLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.plain, self.own = nn.Linear(4, 4), OwnLinear(4, 4)
        self.normed = parametrizations.weight_norm(nn.Linear(4, 4))
        self.pruned = nn.Linear(4, 4)
        prune.l1_unstructured(self.pruned, "weight", 0.5)
        self.used_otherwise = nn.Linear(4, 4)
        self.up = nn.ConvTranspose1d(4, 4, 2)
        self.again = self.plain

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.pruned(self.normed(self.own(self.plain(self.embed(tokens)))))
        x = nn.functional.linear(x, self.used_otherwise.weight)
        x = self.up(x.transpose(1, 2), output_size=[4]).transpose(1, 2)
        return self.head(self.again(x))


def test_reasons():
    net = Net()
    found = {layer.name: layer.why_whole for layer in splittable_layers(net, (torch.tensor([[1, 2, 3]]),), {})}
    assert found["plain"] == "" and "again" not in found
    for name, words in {
        "head": "tied", "own": "OwnLinear may compute something else", "normed": "parametrization",
        "pruned": "hooks", "used_otherwise": "not called", "up": "more than its input",
    }.items():  # fmt: skip
        assert words in found[name], name


def test_odd_weights_are_left_alone():
    net = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64))
    (layer,) = splittable_layers(net, (torch.zeros(1, 4, dtype=torch.complex64),), {})
    assert "complex64" in layer.why_whole


class OwnAttention(nn.MultiheadAttention):
    pass


class Attentions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.MultiheadAttention(8, 2), OwnAttention(8, 2)
        self.c = nn.MultiheadAttention(8, 2)
        parametrizations.weight_norm(self.c.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        for attention in (self.a, self.b, self.c, self.a):
            x = attention(x, x, x)[0]
        return x


def test_attention_is_opened_and_closed_again():
    net = Attentions().eval()
    old, x = net.a, torch.randn(3, 2, 8)
    wanted = net(x)
    net, opened, refused = open_attention(net)
    assert isinstance(net.a, ProjectedAttention) and list(refused) == ["b", "c"]
    torch.testing.assert_close(net(x), wanted)
    layers = {layer.name: layer for layer in splittable_layers(net, (x,), refused)}
    assert list(layers) == ["a.q_proj", "a.k_proj", "a.v_proj", "a.out_proj", "b", "c"]
    assert len(layers["a.q_proj"].seen.calls) == 2 and "OwnAttention" in layers["b"].why_whole
    assert "parametrization" in layers["c"].why_whole
    assert close_attention(net, opened).a is old
    net, opened, _ = open_attention(net)
    net.a.v_proj = FactorizedLayer.of("v", net.a.v_proj, 2)
    assert isinstance(close_attention(net, opened).a, ProjectedAttention)
    alone, _, _ = open_attention(nn.MultiheadAttention(8, 2))
    assert isinstance(alone, ProjectedAttention)


def test_modules_are_exchanged_wherever_they_are_used():
    shared, new = nn.Linear(2, 2), nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.Sequential(shared))
    put_in_place(net, {shared: new})
    assert net[0] is new and net[1][0] is new
    assert put_in_place(shared, {shared: new}) is new


def test_patterns():
    assert by_pattern("split", ["a.b", "a.c"], {"a.*": 1, "*.c": 2}) == {"a.b": 1, "a.c": 2}
    with pytest.raises(InvalidArgument, match="exclude: no layer is named 'fc'; the model has a, b"):
        by_pattern("exclude", ["a", "b"], {"fc": 1})
