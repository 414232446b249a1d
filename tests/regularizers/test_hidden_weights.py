"""Hiding and showing weights gives back the same bits."""

import torch

from spokeshave.regularizers.hidden_weights import HiddenWeights


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
