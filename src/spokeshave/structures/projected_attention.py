"""Projected attention: multi-head attention whose four projections are layers of their own, so that each can be split.

`nn.MultiheadAttention` keeps them as weights of functions, and torch's fused attention reads those weights past any
module that stands for them. Vaswani et al., Attention Is All You Need, NIPS 2017, section 3.2:

    out_proj(concat of heads of softmax(q k^T / sqrt(d)) v),   q = q_proj(query), k = k_proj(key), v = v_proj(value)
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class ProjectedAttention(nn.Module):
    """The same function as an `nn.MultiheadAttention`, its arguments and outputs included; nested tensors excepted.

    Args:
        attention: it is not modified; its weights are copied.

    Example:
        >>> attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(1, 3, 8)
        >>> bool(torch.allclose(ProjectedAttention(attention)(x, x, x)[0], attention(x, x, x)[0], atol=1e-6))
        True
    """

    traced_as_leaf = True
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None
    in_proj_bias = None
    """Read by nn.TransformerEncoderLayer: without one it does not take its fused path, which reads weights."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = attention.embed_dim, attention.num_heads, attention.head_dim
        self.kdim, self.vdim = attention.kdim, attention.vdim
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        self.add_zero_attn = attention.add_zero_attn
        self._qkv_same_embed_dim = attention._qkv_same_embed_dim
        packed = attention.in_proj_weight
        weights = (
            [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
            if packed is None
            else list(packed.detach().chunk(3))
        )
        together = attention.in_proj_bias
        biases = [None] * 3 if together is None else list(together.detach().chunk(3))
        # Parts of a packed weight are trained where the whole is.
        owners = [packed] * 3 if packed is not None else weights
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight, bias, owner.requires_grad, together is not None and together.requires_grad)
            for weight, bias, owner in zip(weights, biases, owners, strict=True)
        )
        out = attention.out_proj
        self.out_proj = _linear(
            out.weight, out.bias, out.weight.requires_grad, out.bias is not None and out.bias.requires_grad
        )
        for name in ("bias_k", "bias_v"):
            old = getattr(attention, name)
            new = None if old is None else nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad)
            self.register_parameter(name, new)
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; the arguments are those of `nn.MultiheadAttention.forward`.

        Returns:
            The outputs, and the weights or None.

        Raises:
            RuntimeError: for the hint `is_causal` without a mask, as in torch.
        """
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        hint = is_causal and key_padding_mask is None and not need_weights
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        mask = None if hint else self._mask(attn_mask, key_padding_mask, q)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, b.expand(len(x), 1, -1)], 1) for x, b in ((k, self.bias_k), (v, self.bias_v)))
        q, k, v = (x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, dropout) if dropout > 0 else weights
            heads = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=hint)
        result = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights

    def _mask(self, attention: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Both masks as one to add, (batch or 1, heads or 1, queries or 1, keys); added keys are never masked."""
        found = None
        if attention is not None:
            found = _to_add(attention, like)
            # Of three axes, the first is of all heads of the first image, then of the second.
            found = found[None, None] if found.dim() == 2 else found.unflatten(0, (-1, self.num_heads))
        if padding is not None:
            padded = _to_add(padding, like)[:, None, None]
            found = padded if found is None else found + padded
        added = (self.bias_k is not None) + self.add_zero_attn
        return F.pad(found, (0, added)) if found is not None and added else found


def _to_add(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
    return mask.to(like.dtype)


def _linear(weight: Tensor, bias: Tensor | None, trained: bool, bias_trained: bool) -> nn.Linear:
    settings: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype, "bias": bias is not None}
    made = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], **settings)
    assert isinstance(made, nn.Linear)
    made.weight.data.copy_(weight.detach())
    made.weight.requires_grad_(trained)
    if bias is not None and made.bias is not None:
        made.bias.data.copy_(bias.detach())
        made.bias.requires_grad_(bias_trained)
    return made


def leave_fused_paths(model: nn.Module, replaced: tuple[type[nn.Module], ...]) -> None:
    """Keep torch's transformer layers with replaced parts from reading the weights of what is no longer there.

    Args:
        model: its encoder layers, and encoders of such layers, are changed in place.
        replaced: kinds of modules that stand for a linear layer or an attention.
    """
    for module in model.modules():
        if not any(isinstance(part, replaced) for part in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # the one condition of the fused path that is a plain attribute
        if isinstance(module, nn.TransformerEncoder):  # nested tensors are for the fused path only
            module.use_nested_tensor = module.enable_nested_tensor = False
