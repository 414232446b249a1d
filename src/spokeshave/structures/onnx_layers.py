"""ONNX layers: what the operators of networks become in torch (onnx.ai, operator schemas of opsets 7 to 23)."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from spokeshave.structures.onnx_values import Operators, attributes

LAYERS = Operators()


def _x(reader: Any, node: Any, place: int = 0) -> fx.Node:
    return reader.node(node.input[place])


def _window(reader: Any, node: Any, kernel: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (begins, then ends) of a window."""
    given = attributes(node)
    strides = list(given.get("strides") or [1] * len(kernel))
    dilations = list(given.get("dilations") or [1] * len(kernel))
    mode = given.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(given.get("pads") or [0] * 2 * len(kernel)) if mode == "NOTSET" else [0] * 2 * len(kernel)
        return strides, dilations, pads
    sizes = (reader.shape(node.input[0]) or (None,) * (2 + len(kernel)))[2:]
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if size is None and stride != 1:
            raise reader.refuse(node, f"with auto_pad {mode} and an image of no fixed size is not known")
        size = size or 1
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size)
        small = total // 2
        begins.append(small if mode == "SAME_UPPER" else total - small)
        ends.append(total - begins[-1])
    return strides, dilations, begins + ends


def _padded(reader: Any, x: fx.Node, pads: list[int], value: float = 0.0) -> tuple[fx.Node, list[int]]:
    """The input and what is left to pad on both sides; where the sides differ, a pad goes before."""
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    if begins == ends:
        return x, begins
    sides = [side for pair in zip(reversed(begins), reversed(ends), strict=True) for side in pair]
    return reader.call(F.pad, x, sides, "constant", value), [0] * len(begins)


@LAYERS.reads("Conv")
def _convolution(reader: Any, node: Any) -> fx.Node:
    weight, bias = reader.constant(node, 1), reader.constant(node, 2)
    axes = weight.ndim - 2
    if axes not in (1, 2, 3):
        raise reader.refuse(node, f"with {axes} axes is not known")
    kernel = list(weight.shape[2:])
    strides, dilations, pads = _window(reader, node, kernel)
    x, padding = _padded(reader, _x(reader, node), pads)
    groups = attributes(node).get("group", 1)
    layer: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    made = layer(
        weight.shape[1] * groups,
        len(weight),
        *map(tuple, (kernel, strides, padding, dilations)),
        groups,
        bias=bias is not None,
    )
    return reader.module(node, _filled(made, weight=weight, bias=bias), x)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(module, name, nn.Parameter(tensor.clone()))
    return module


@LAYERS.reads("Gemm")
def _gemm(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    alpha, beta = given.get("alpha", 1.0), given.get("beta", 1.0)
    if given.get("transA", 0):
        raise reader.refuse(node, "with transA is not known")
    weight, bias = reader.constant(node, 1), reader.constant(node, 2)
    weight = alpha * (weight if given.get("transB", 0) else weight.T)
    if bias is not None:
        if bias.numel() not in (1, len(weight)):
            raise reader.refuse(node, f"with a C of shape {tuple(bias.shape)} is not known")
        bias = beta * bias.reshape(-1).expand(len(weight))
    return _linear(reader, node, weight, bias)


def _linear(reader: Any, node: Any, weight: Tensor, bias: Tensor | None) -> fx.Node:
    layer = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
    weight = weight.contiguous()
    return reader.module(node, _filled(layer, weight=weight, bias=bias), _x(reader, node))


@LAYERS.reads("MatMul")
def _matmul(reader: Any, node: Any) -> fx.Node:
    weight = reader.given(node, 1)
    if isinstance(weight, Tensor) and weight.ndim == 2:
        return _linear(reader, node, weight.T, None)
    return reader.call(torch.matmul, _x(reader, node), _x(reader, node, 1))


@LAYERS.reads("MaxPool", "AveragePool")
def _pool(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    kernel = list(given["kernel_shape"])
    strides, dilations, pads = _window(reader, node, kernel)
    ceil, mean = bool(given.get("ceil_mode", 0)), node.op_type == "AveragePool"
    if len(kernel) != 2 or (len(node.output) > 1 and node.output[1]):
        raise reader.refuse(node, "over other than two axes, or with indices, is not known")
    x, padding = _padded(reader, _x(reader, node), pads, 0.0 if mean else -torch.inf)
    if any(2 * pad > width for pad, width in zip(padding, kernel, strict=True)):
        raise reader.refuse(node, "that pads by more than half of its window is not known")
    width, stride, side, spread = map(tuple, (kernel, strides, padding, dilations))
    largest: Any = nn.MaxPool2d
    average: Any = nn.AvgPool2d
    if not mean:
        return reader.module(node, largest(width, stride, side, spread, ceil_mode=ceil), x)
    count = bool(given.get("count_include_pad", 0))
    uneven = any(pads) and not any(padding)
    if dilations != [1, 1] or (uneven and (ceil or not count)):
        raise reader.refuse(node, "with dilations, or with unequal pads that do not count, is not known")
    return reader.module(node, average(width, stride, side, ceil, count or uneven), x)


@LAYERS.reads("GlobalAveragePool")
def _global_average(reader: Any, node: Any) -> fx.Node:
    return reader.module(node, nn.AdaptiveAvgPool2d(1), _x(reader, node))


@LAYERS.reads("GlobalMaxPool")
def _global_max(reader: Any, node: Any) -> fx.Node:
    return reader.module(node, nn.AdaptiveMaxPool2d(1), _x(reader, node))


@LAYERS.reads("LRN")
def _response_normalization(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    if given["size"] % 2 == 0:
        raise reader.refuse(node, "over an even number of channels, which torch centres elsewhere, is not known")
    factors = given.get("alpha", 1e-4), given.get("beta", 0.75), given.get("bias", 1.0)
    return reader.module(node, nn.LocalResponseNorm(given["size"], *factors), _x(reader, node))


@LAYERS.reads("BatchNormalization")
def _batch_normalization(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    if given.get("training_mode", 0):
        raise reader.refuse(node, "in training mode is not known")
    weight, bias, mean, variance = (reader.constant(node, place) for place in (1, 2, 3, 4))
    rank = len(reader.shape(node.input[0]) or (0,) * 4)
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 5: nn.BatchNorm3d}.get(rank, nn.BatchNorm2d)
    made = layer(len(weight), given.get("epsilon", 1e-5))
    made.running_mean, made.running_var = mean.clone(), variance.clone()
    return reader.module(node, _filled(made, weight=weight, bias=bias), _x(reader, node))


_UNARY: dict[str, Any] = {
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softplus": nn.Softplus,
    "HardSwish": nn.Hardswish,
    "Exp": torch.exp,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Log": torch.log,
    "Erf": torch.erf,
    "Reciprocal": torch.reciprocal,
}


@LAYERS.reads(*_UNARY)
def _unary(reader: Any, node: Any) -> fx.Node:
    what = _UNARY[node.op_type]
    return (
        reader.module(node, what(), _x(reader, node)) if isinstance(what, type) else reader.call(what, _x(reader, node))
    )


@LAYERS.reads("LeakyRelu")
def _leaky(reader: Any, node: Any) -> fx.Node:
    return reader.module(node, nn.LeakyReLU(attributes(node).get("alpha", 0.01)), _x(reader, node))


@LAYERS.reads("Elu")
def _elu(reader: Any, node: Any) -> fx.Node:
    return reader.module(node, nn.ELU(attributes(node).get("alpha", 1.0)), _x(reader, node))


@LAYERS.reads("HardSigmoid")
def _hard_sigmoid(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    scaled = reader.call(operator.mul, _x(reader, node), given.get("alpha", 0.2))
    return reader.call(torch.clamp, reader.call(operator.add, scaled, given.get("beta", 0.5)), 0.0, 1.0)


@LAYERS.reads("Clip")
def _clip(reader: Any, node: Any) -> fx.Node:
    given = attributes(node)
    limits = [given.get(name) for name in ("min", "max")]
    for place in (1, 2):
        limit = reader.constant(node, place)
        limits[place - 1] = limits[place - 1] if limit is None else limit.item()
    return reader.call(torch.clamp, _x(reader, node), *limits)


@LAYERS.reads("Softmax")
def _softmax(reader: Any, node: Any) -> fx.Node:
    axis, x = attributes(node).get("axis", -1 if reader.opset >= 13 else 1), _x(reader, node)
    rank = len(reader.shape(node.input[0]) or ())
    if reader.opset >= 13 or axis == -1 or axis == rank - 1:
        return reader.module(node, nn.Softmax(axis), x)
    flat = reader.call(
        torch.softmax, reader.call(torch.flatten, x, axis), -1
    )  # one row from the axis on, until opset 12
    return reader.method("view_as", flat, x)


@LAYERS.reads("ReduceMean")
def _mean(reader: Any, node: Any) -> fx.Node:
    axes = reader.integers(node, 1, "axes")
    if axes is None:
        raise reader.refuse(node, "over all axes, the batch among them, is not known")
    return reader.call(torch.mean, _x(reader, node), tuple(axes), bool(attributes(node).get("keepdims", 1)))


@LAYERS.reads("Pad")
def _pad(reader: Any, node: Any) -> fx.Node:
    given, pads = attributes(node), reader.integers(node, 1, "pads")
    if given.get("mode", "constant") != "constant" or reader.given(node, 3) is not None or pads is None:
        raise reader.refuse(node, "of this mode, or along given axes, is not known")
    filling = reader.constant(node, 2)
    value = float(given.get("value", 0.0) if filling is None else filling)
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    sides = [side for pair in zip(reversed(begins), reversed(ends), strict=True) for side in pair]
    return reader.call(F.pad, _x(reader, node), sides, "constant", value)
