"""Hiding and showing weights gives back the same bits; what regularizers that hide share goes through a checkpoint."""

import torch
from torch import nn

from spokeshave.regularizers.guidance import Guide
from spokeshave.regularizers.hidden_weights import HiddenWeights, HidesWeights
from spokeshave.structures.pruned_layers import pruned_layers
from spokeshave.structures.roofline_model import MachineRates


def test_what_was_hidden_comes_back_bit_for_bit_and_visible_weights_may_move():
    torch.manual_seed(0)
    weight, mask = torch.randn(50, 7), torch.rand(50, 7) > 0.5
    before = weight.clone()
    hidden = HiddenWeights()
    hidden.hide("a", weight, mask)
    assert torch.equal(weight, torch.where(mask, before, 0.0))
    other = HiddenWeights()
    other.load_state_dict({name: value.clone() for name, value in hidden.state_dict().items()})
    other.show("a", weight)
    assert torch.equal(weight, before)
    hidden.show("b", weight)
    hidden.forget("a")
    hidden.show("a", weight)
    assert torch.equal(weight, before)


def hiding(strength: float) -> HidesWeights:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 32, 5))
    guide = Guide(net, torch.zeros(1, 3, 16, 16), MachineRates(1e11, 2.0, 1e10))
    return HidesWeights(pruned_layers(net, 1.0), strength, guide)


def test_a_checkpoint_names_its_parts_as_ever_and_gives_them_back():
    first, second = hiding(0.1), hiding(1.0)
    weight = first._layers[1].weight
    with torch.no_grad():
        weight.fill_(2.0)
    first.step = 7
    first._hidden.hide("1", weight, torch.arange(weight.numel()).reshape(weight.shape) % 4 == 0)
    assert first.statistics()["1"].elements == 0.75 and first.statistics()["0"].elements == 0
    assert first.guide is not None and second.guide is not None
    first.guide.observe(3)
    state = first.state_dict()
    # Files that were written before must still be read: the names are a format.
    assert [name for name in state if "guide" not in name] == ["strength", "step", "hidden.1"]
    assert {name for name in state if "guide" in name} >= {"guide.step", "guide.verdicts", "guide.events"}
    second.load_state_dict(state)
    assert (second.strength, second.step, second.guide.step) == (0.1, 7, 3)
    assert torch.equal(second._hidden.state_dict()["1"], 2.0 - weight)
