"""Sparse convolution as a torch operator, `torch.ops.spokeshave.sparse_conv2d` (Park et al., ICLR 2017).

O(n, y, x) = b(n) + sum over the nonzeros (c, r, s) of W(n, c, r, s) * I(c, y + r, x + s), cut at 0 where asked. An
operator of its own is what `torch.compile` and `torch.export` can keep whole. Its definition is `reference`; the
generated code is found by `compiled_layer.py`. Gradients are those of the definition, computed in torch.

Departs from the paper: as in `rewrites/to_sparse.py`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse.compiled_layer import INPUT, OUTPUT, Kernel, remember, run_layer, stored
from spokeshave.targets.cpu_sparse.network_steps import Convolve


def dense(
    values: Float[Tensor, " nonzeros"], places: Int[Tensor, " nonzeros"], shape: Sequence[int]
) -> Float[Tensor, "..."]:
    """An array from its nonzeros.

    Args:
        values: of the nonzeros.
        places: flat index of each.
        shape: of the array.

    Example:
        >>> dense(torch.tensor([5.0]), torch.tensor([2]), (2, 2)).tolist()
        [[0.0, 0.0], [5.0, 0.0]]
    """
    flat = values.new_zeros(torch.Size(shape).numel())
    return flat.index_put((places.long(),), values).reshape(tuple(shape))


def reference(
    x: Float[Tensor, "images channels rows columns"],
    values: Float[Tensor, " nonzeros"],
    places: Int[Tensor, " nonzeros"],
    bias: Float[Tensor, " filters"],
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    rectify: bool,
) -> Float[Tensor, "images filters rows2 columns2"]:
    """The definition, in the dtype of `x`.

    Args:
        x: images.
        values: nonzeros of the weight.
        places: flat index of each.
        bias: of each filter.
        shape: of the weight: (filters, channels of a group, rows, columns).
        stride: along rows and columns.
        padding: likewise.
        dilation: likewise.
        groups: of channels.
        rectify: end with max(0, x).

    Example:
        >>> x, one = torch.tensor([[[[1.0, -2.0]]]]), torch.ones(1)
        >>> reference(x, 3 * one, torch.tensor([0]), one, (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1, True).tolist()
        [[[[4.0, 0.0]]]]
    """
    weight = dense(values, places, shape).to(x)
    result = F.conv2d(x, weight, bias.to(x), tuple(stride), tuple(padding), tuple(dilation), groups)
    return result.relu() if rectify else result


def output_shape(
    x: Sequence[Any], shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Any, int, Any, Any]:
    """Shape of the output.

    Args:
        x: shape of the input; sizes may be symbols.
        shape: of the weight.
        stride: along rows and columns.
        padding: likewise.
        dilation: likewise.

    Example:
        >>> output_shape((5, 3, 8, 8), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1))
        (5, 4, 4, 4)
    """
    rows, columns = (
        (x[2 + axis] + 2 * padding[axis] - dilation[axis] * (shape[2 + axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    return x[0], shape[0], rows, columns


def _check(x: Tensor, bias: Tensor, shape: Sequence[int], groups: int) -> None:
    if x.ndim != 4 or x.shape[1] != shape[1] * groups:
        raise InvalidArgument(
            f"x: expected (images, {shape[1] * groups}, rows, columns) for a weight of shape {tuple(shape)} in "
            f"{groups} groups, got {tuple(x.shape)}"
        )
    if tuple(bias.shape) != (shape[0],):
        raise InvalidArgument(f"bias: expected one for each of the {shape[0]} filters, got {tuple(bias.shape)}")


@torch.library.custom_op(
    "spokeshave::sparse_conv2d",
    mutates_args=(),
    schema="(Tensor x, Tensor values, Tensor places, Tensor bias, int[] shape, int[] stride, int[] padding, "
    "int[] dilation, int groups, bool rectify, int computed_by=0) -> Tensor",
)
def sparse_conv2d(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    bias: Tensor,
    shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rectify: bool,
    computed_by: int = Kernel.AUTO.value,
) -> Tensor:
    """A 2-D convolution by the nonzeros of its weight.

    Args:
        x: float, [images, channels, rows, columns].
        values: float, [nonzeros].
        places: int32 or int64, [nonzeros]: ascending flat indices into the weight.
        bias: float, [filters].
        shape: of the weight: (filters, channels of a group, rows, columns).
        stride: along rows and columns.
        padding: likewise.
        dilation: likewise.
        groups: of channels.
        rectify: end with max(0, x).
        computed_by: value of a `Kernel`; inductor takes the name `kernel` for itself.

    Returns:
        [images, filters, rows, columns], contiguous.

    Raises:
        InvalidArgument: the shapes do not fit each other, or generated code cannot be had for this dtype.
    """
    _check(x, bias, shape, groups)
    weights = (values, places, bias)

    def step() -> Convolve:
        return Convolve(
            "sparse_conv2d",
            (INPUT,),
            OUTPUT,
            stored(values, places, shape),
            bias.detach().float().numpy(),
            (stride[0], stride[1]),
            (padding[0], padding[1]),
            (dilation[0], dilation[1]),
            groups,
            rectify,
        )

    _, _, rows, columns = size = output_shape(x.shape, shape, stride, padding, dilation)
    if min(rows, columns) < 1:
        raise InvalidArgument(f"x: {tuple(x.shape)} is smaller than the kernel {tuple(shape[2:])}")
    form = ("sparse_conv2d", *map(tuple, (shape, stride, padding, dilation)), groups, rectify)
    return run_layer(
        Kernel(computed_by),
        x,
        weights,
        form,
        tuple(map(int, size)),
        step,
        lambda: reference(x, *weights, shape, stride, padding, dilation, groups, rectify),
    )


@sparse_conv2d.register_fake
def _fake(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    bias: Tensor,
    shape: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    *_: Any,
) -> Tensor:
    _check(x, bias, shape, groups)
    return x.new_empty(output_shape(x.shape, shape, stride, padding, dilation))


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, values, places, bias, output = ctx.saved_tensors
    shape, stride, padding, dilation, groups = ctx.form
    if output is not None:
        gradient = gradient * (output > 0)
    weight = dense(values, places, shape).to(x)
    to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        [shape[0]],
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[3]],
    )
    to_values = to_weight.flatten()[places.long()].to(values) if ctx.needs_input_grad[1] else None
    to_bias = to_bias.to(bias) if ctx.needs_input_grad[3] else None
    return to_x if ctx.needs_input_grad[0] else None, to_values, None, to_bias, *(None,) * 7


sparse_conv2d.register_autograd(_backward, setup_context=remember)


@register_flop_formula(torch.ops.spokeshave.sparse_conv2d)
def _flops(
    x: Sequence[int],
    values: Sequence[int],
    _places: Sequence[int],
    _bias: Sequence[int],
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    return 2 * values[0] * x[0] * prod(output_shape(x, shape, stride, padding, dilation)[2:])
