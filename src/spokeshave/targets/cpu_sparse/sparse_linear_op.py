"""Sparse linear layer as a torch operator, `torch.ops.spokeshave.sparse_linear`.

y = W x + b by the nonzeros of W, cut at 0 where asked. An operator of its own is what `torch.compile` and
`torch.export` can keep whole. Its definition is `reference`; the generated code (`sparse_linear.py`) is found by
`compiled_layer.py`. Gradients are those of the definition, computed in torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse.compiled_layer import INPUT, OUTPUT, Kernel, remember, run_layer, stored
from spokeshave.targets.cpu_sparse.network_steps import Multiply
from spokeshave.targets.cpu_sparse.sparse_convolution_op import dense


def reference(
    x: Float[Tensor, "images features"],
    values: Float[Tensor, " nonzeros"],
    places: Int[Tensor, " nonzeros"],
    bias: Float[Tensor, " rows"],
    shape: Sequence[int],
    rectify: bool,
) -> Float[Tensor, "images rows"]:
    """The definition, in the dtype of `x`.

    Args:
        x: features of each image.
        values: nonzeros of the weight.
        places: flat index of each.
        bias: of each row.
        shape: of the weight: (rows, features).
        rectify: end with max(0, x).

    Example:
        >>> x, one = torch.tensor([[1.0, 4.0]]), torch.ones(1)
        >>> reference(x, one, torch.tensor([1]), one, (1, 2), False).tolist()
        [[5.0]]
    """
    result = F.linear(x, dense(values, places, shape).to(x), bias.to(x))
    return result.relu() if rectify else result


def _check(x: Tensor, bias: Tensor, shape: Sequence[int]) -> None:
    if x.ndim != 2 or x.shape[1] != shape[1]:
        raise InvalidArgument(f"x: expected (images, {shape[1]}), got {tuple(x.shape)}")
    if tuple(bias.shape) != (shape[0],):
        raise InvalidArgument(f"bias: expected one for each of the {shape[0]} rows, got {tuple(bias.shape)}")


@torch.library.custom_op(
    "spokeshave::sparse_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor values, Tensor places, Tensor bias, int[] shape, bool rectify, int computed_by=0) "
    "-> Tensor",
)
def sparse_linear(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    bias: Tensor,
    shape: list[int],
    rectify: bool,
    computed_by: int = Kernel.AUTO.value,
) -> Tensor:
    """A linear layer by the nonzeros of its weight.

    Args:
        x: float, [images, features].
        values: float, [nonzeros].
        places: int32 or int64, [nonzeros]: ascending flat indices into the weight.
        bias: float, [rows].
        shape: of the weight: (rows, features).
        rectify: end with max(0, x).
        computed_by: value of a `Kernel`; inductor takes the name `kernel` for itself.

    Returns:
        [images, rows], contiguous.

    Raises:
        InvalidArgument: the shapes do not fit each other, or generated code cannot be had for this dtype.
    """
    _check(x, bias, shape)

    def step() -> Multiply:
        weight = stored(values, places, shape)
        return Multiply("sparse_linear", (INPUT,), OUTPUT, weight, bias.detach().float().numpy(), rectify)

    return run_layer(
        Kernel(computed_by),
        x,
        (values, places, bias),
        ("sparse_linear", tuple(shape), rectify),
        (x.shape[0], shape[0]),
        step,
        lambda: reference(x, values, places, bias, shape, rectify),
    )


@sparse_linear.register_fake
def _fake(x: Tensor, values: Tensor, places: Tensor, bias: Tensor, shape: Any, *_: Any) -> Tensor:
    _check(x, bias, shape)
    return x.new_empty((x.shape[0], shape[0]))


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, values, places, bias, output = ctx.saved_tensors
    (shape,) = ctx.form
    if output is not None:
        gradient = gradient * (output > 0)
    to_x = gradient @ dense(values, places, shape).to(x) if ctx.needs_input_grad[0] else None
    to_values = (gradient.T @ x).flatten()[places.long()].to(values) if ctx.needs_input_grad[1] else None
    to_bias = gradient.sum(0).to(bias) if ctx.needs_input_grad[3] else None
    return to_x, to_values, None, to_bias, None, None, None


sparse_linear.register_autograd(_backward, setup_context=remember)


@register_flop_formula(torch.ops.spokeshave.sparse_linear)
def _flops(x: Sequence[int], values: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * values[0] * x[0]
