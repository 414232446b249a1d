"""Projected attention against torch's own, over its settings, masks and ways to be called."""

import copy

import pytest
import torch
from torch import nn

from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.projected_attention import PROJECTIONS, ProjectedAttention, leave_fused_paths

SETTINGS = [
    {"batch_first": True},
    {"bias": False},
    {"kdim": 6, "vdim": 10, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    {"add_bias_kv": True, "kdim": 6, "vdim": 10},
    {"add_zero_attn": True},
]


def attention_and_inputs(settings: dict) -> tuple[nn.MultiheadAttention, list[torch.Tensor]]:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, **settings).double().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.5)
    sizes = (8, settings.get("kdim", 8), settings.get("vdim", 8))
    inputs = [torch.randn(3, 4 if i == 0 else 5, size).double() for i, size in enumerate(sizes)]
    return attention, inputs if settings.get("batch_first") else [x.transpose(0, 1) for x in inputs]


def assert_same(a: object, b: object) -> None:
    for x, y in zip(a, b, strict=True):  # type: ignore[call-overload]
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


PADDING = torch.tensor([[False] * 5, [False, False, True, True, True], [False, True, False, False, True]])
CAUSAL = torch.ones(4, 5).triu(1).bool()
MASKS = {
    "none": {},
    "padding": {"key_padding_mask": PADDING},
    "added padding": {"key_padding_mask": PADDING.double() * -2},
    "causal": {"attn_mask": CAUSAL},
    "causal hint": {"attn_mask": CAUSAL, "is_causal": True},
    "of heads": {"attn_mask": torch.linspace(-1, 1, 6 * 20).reshape(6, 4, 5).double()},
    "both": {"attn_mask": CAUSAL, "key_padding_mask": PADDING, "is_causal": True},
}


@pytest.mark.parametrize("weights", [{}, {"need_weights": False}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_mask_and_call_gives_what_torch_gives(settings, mask, weights):
    attention, inputs = attention_and_inputs(settings)
    mine = ProjectedAttention(attention)
    assert_same(mine(*inputs, **MASKS[mask], **weights), attention(*inputs, **MASKS[mask], **weights))


@pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
def test_without_a_batch(settings):
    attention, inputs = attention_and_inputs(settings)
    alone = [x[0] if settings.get("batch_first") else x[:, 0] for x in inputs]
    mine = ProjectedAttention(attention)
    padding = PADDING[1]
    assert_same(mine(*alone, key_padding_mask=padding), attention(*alone, key_padding_mask=padding))
    with pytest.raises(RuntimeError, match="attn_mask"):
        mine(*alone, is_causal=True)


def test_dropout_is_drawn_alike_and_gradients_flow():
    attention, inputs = attention_and_inputs({"dropout": 0.5, "batch_first": True})
    attention.train()
    mine = ProjectedAttention(attention)
    assert mine.training
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wanted = attention(*inputs)
        torch.manual_seed(3)
        assert_same(mine(*inputs), wanted)
    mine(*inputs)[0].sum().backward()
    assert all(p.grad is not None for p in mine.parameters())


def test_frozen_attention_stays_frozen_and_is_not_shared():
    attention, _ = attention_and_inputs({"batch_first": True})
    attention.requires_grad_(False)
    mine = ProjectedAttention(attention)
    assert not any(p.requires_grad for p in mine.parameters())
    assert not {p.data_ptr() for p in mine.parameters()} & {p.data_ptr() for p in attention.parameters()}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("part", ["self_attn", "linear1"])
def test_transformer_encoders_do_not_read_weights_past_the_parts_that_were_replaced(part):
    """In eval mode without gradients torch runs encoder layers as one call that takes all weights."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    changed = copy.deepcopy(encoder)
    last = changed.layers[1]
    old = getattr(last, part)
    split = ProjectedAttention(old) if part == "self_attn" else FactorizedLayer.of(part, old, 8)
    setattr(last, part, split)
    leave_fused_paths(changed, (ProjectedAttention, FactorizedLayer))
    x, padding = torch.randn(3, 5, 8), PADDING.sort(1).values
    with torch.no_grad():
        torch.testing.assert_close(changed(x), encoder(x), rtol=1e-4, atol=1e-5)
        mine, theirs = changed(x, src_key_padding_mask=padding), encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(mine[~padding], theirs[~padding], rtol=1e-4, atol=1e-5)


def test_what_is_frozen_stays_frozen_and_the_rest_is_trained():
    attention = nn.MultiheadAttention(8, 2)
    for name, parameter in attention.named_parameters():
        parameter.requires_grad_("bias" in name)
    mine = ProjectedAttention(attention)
    assert {name: p.requires_grad for name, p in mine.named_parameters()} == {
        f"{part}.{kind}": kind == "bias" for part in PROJECTIONS for kind in ("weight", "bias")
    }
