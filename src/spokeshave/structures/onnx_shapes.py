"""ONNX shapes: the operators that compute, join, cut and reorder, on tensors, on constants and on sizes.

Sizes that do not depend on the batch are computed while the network is read (onnx.ai, operator schemas of opsets 7 to
23); what is left works at any batch size.
"""

import operator
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from spokeshave.optional import require
from spokeshave.structures.onnx_values import Operators, attributes, sparse_tensor_of, tensor_of

SHAPES = Operators()


_BINARY = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Pow": operator.pow,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": operator.add,
}


@SHAPES.reads(*_BINARY)
def _binary(reader: Any, node: Any) -> Any:
    function, values = _BINARY[node.op_type], [reader.given(node, place) for place in range(len(node.input))]
    if any(isinstance(value, list) for value in values):
        return _on_sizes(reader, node, values)
    if all(isinstance(value, Tensor) for value in values):
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result
    if node.op_type == "Add":
        for place in (0, 1):
            bias, layer = values[1 - place], reader.layer(values[place])
            fits = isinstance(layer, nn.Linear) and isinstance(bias, Tensor) and bias.shape == (layer.out_features,)
            if fits and layer.bias is None and reader.only_read_once(node.input[place]):
                layer.bias = nn.Parameter(bias.clone())
                return values[place]
    plain = node.op_type not in ("Max", "Min")
    single = [plain and isinstance(value, Tensor) and value.numel() == 1 and value.ndim < 2 for value in values]
    terms = [
        value.item() if one else reader.node(name) for value, one, name in zip(values, single, node.input, strict=True)
    ]
    result = terms[0]
    for term in terms[1:]:
        result = reader.call(function, result, term)
    return result


def _on_sizes(reader: Any, node: Any, values: list[Any]) -> list[Any]:
    """Arithmetic on shapes, entry by entry."""
    function = operator.floordiv if node.op_type == "Div" else _BINARY[node.op_type]
    one, other = (value if isinstance(value, list) else [int(part) for part in value.flatten()] for value in values)
    length = max(len(one), len(other))
    pairs = zip(one * (length // len(one)), other * (length // len(other)), strict=True)
    return [
        reader.call(function, a, b) if isinstance(a, fx.Node) or isinstance(b, fx.Node) else function(a, b)
        for a, b in pairs
    ]


@SHAPES.reads("Concat")
def _concat(reader: Any, node: Any) -> Any:
    values, axis = [reader.given(node, place) for place in range(len(node.input))], attributes(node)["axis"]
    if any(isinstance(value, list) for value in values):
        parts = [value if isinstance(value, list) else [int(part) for part in value.flatten()] for value in values]
        return [size for part in parts for size in part]
    if all(isinstance(value, Tensor) for value in values):
        return torch.cat(values, axis)
    return reader.call(torch.cat, [reader.node(name) for name in node.input], axis)


@SHAPES.reads("Split")
def _split(reader: Any, node: Any) -> tuple[fx.Node, ...]:
    axis, x, parts = attributes(node).get("axis", 0), reader.node(node.input[0]), len(node.output)
    sizes = reader.integers(node, 1, "split")
    if sizes is None:
        whole = (reader.shape(node.input[0]) or {})[axis] if reader.shape(node.input[0]) else None
        if whole is None:
            raise reader.refuse(node, "of an axis of no fixed size is not known")
        step = -(-whole // parts)
        sizes = [min(step, whole - step * place) for place in range(parts)]
    pieces = reader.call(torch.split, x, sizes, axis)
    return tuple(reader.call(operator.getitem, pieces, place) for place in range(parts))


@SHAPES.reads("Flatten")
def _flatten(reader: Any, node: Any) -> fx.Node:
    axis = attributes(node).get("axis", 1)
    if axis != 1:
        raise reader.refuse(node, f"from axis {axis} on, which mixes the images of a batch, is not known")
    return reader.module(node, nn.Flatten(), reader.node(node.input[0]))


@SHAPES.reads("Reshape")
def _reshape(reader: Any, node: Any) -> Any:
    value, wanted = reader.given(node, 0), reader.given(node, 1)
    sizes: list[Any] = wanted if isinstance(wanted, list) else reader.integers(node, 1, "shape")
    if isinstance(value, list):
        return value
    if isinstance(value, Tensor):
        copied = [value.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
        return value.reshape(copied)
    before = reader.shape(node.input[0]) or ()
    keeps = bool(sizes) and (sizes[0] == 0 or (bool(before) and before[0] is not None and sizes[0] == before[0]))
    if not attributes(node).get("allowzero", 0):
        sizes = [reader.size(value, place) if size == 0 and place else size for place, size in enumerate(sizes)]
    if keeps and len(sizes) == 2:
        return reader.call(torch.flatten, value, 1)
    if keeps:  # a batch that was fixed when the network was exported may have another size now
        rest = list(before[1:])
        if -1 in sizes and None not in rest and all(isinstance(size, int) for size in sizes[1:]):
            whole = prod(size for size in sizes[1:] if size != -1)
            sizes = [size if size != -1 else prod(rest) // whole for size in sizes]
        sizes = [reader.size(value, 0), *sizes[1:]]
    return reader.method("reshape", value, tuple(sizes))


@SHAPES.reads("Transpose")
def _transpose(reader: Any, node: Any) -> Any:
    value, order = reader.given(node, 0), attributes(node).get("perm")
    if isinstance(value, Tensor):
        return value.permute(order or tuple(reversed(range(value.ndim)))).contiguous()
    if order is None:
        raise reader.refuse(node, "without perm, which moves the batch axis, is not known")
    return reader.method("permute", value, tuple(order))


@SHAPES.reads("Identity", "Dropout")
def _pass_on(reader: Any, node: Any) -> Any:
    return reader.given(node, 0)


@SHAPES.reads("Cast")
def _cast(reader: Any, node: Any) -> Any:
    value, kind = reader.given(node, 0), attributes(node)["to"]
    onnx = require("onnx", "reading an ONNX network")
    if isinstance(value, list):
        return value
    numpy = torch.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(kind).type(0).reshape(1)).dtype
    return value.to(numpy) if isinstance(value, Tensor) else reader.method("to", value, numpy)


@SHAPES.reads("Constant")
def _constant(reader: Any, node: Any) -> Tensor:
    for name, value in attributes(node).items():
        if name == "value":
            return tensor_of(value)
        if name == "sparse_value":
            return sparse_tensor_of(value)
        if name in ("value_int", "value_ints", "value_float", "value_floats"):
            return torch.tensor(value)
    raise reader.refuse(node, "of a text is not known")


@SHAPES.reads("Shape")
def _shape(reader: Any, node: Any) -> Any:
    value, given = reader.given(node, 0), attributes(node)
    known = reader.shape(node.input[0])
    if known is None:
        raise reader.refuse(node, "of a value of unknown rank is not known")
    if isinstance(value, Tensor):
        sizes: list[Any] = list(known)
    else:  # the batch stays free even where the file fixes it
        sizes = [size if size is not None and place else reader.size(value, place) for place, size in enumerate(known)]
    return sizes[given.get("start", 0) : given.get("end", len(sizes))]


@SHAPES.reads("Gather")
def _gather(reader: Any, node: Any) -> Any:
    value, places, axis = reader.given(node, 0), reader.constant(node, 1), attributes(node).get("axis", 0)
    if isinstance(value, list):
        return [value[int(place)] for place in places.flatten()]
    if isinstance(value, Tensor):
        return value.index_select(axis, places.flatten()).reshape(
            *value.shape[:axis], *places.shape, *value.shape[axis + 1 :]
        )
    if places.ndim > 1:
        raise reader.refuse(node, f"with indices of shape {tuple(places.shape)} is not known")
    if places.ndim == 0:
        return reader.call(torch.select, value, axis, int(places))
    return reader.call(torch.index_select, value, axis, reader.node(node.input[1]))


@SHAPES.reads("Slice")
def _slice(reader: Any, node: Any) -> Any:
    value = reader.given(node, 0)
    starts, ends = reader.integers(node, 1, "starts"), reader.integers(node, 2, "ends")
    axes, steps = reader.integers(node, 3, "axes"), reader.integers(node, 4, "steps")
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    if any(step < 1 for step in steps):
        raise reader.refuse(node, "backwards is not known")
    if isinstance(value, list):
        return value[starts[0] : ends[0] : steps[0]]
    rank = max([axis + 1 for axis in axes], default=1) if min(axes) >= 0 else len(reader.shape(node.input[0]))
    parts = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return value[tuple(parts)] if isinstance(value, Tensor) else reader.call(operator.getitem, value, tuple(parts))


@SHAPES.reads("Squeeze", "Unsqueeze")
def _axes(reader: Any, node: Any) -> Any:
    value, axes = reader.given(node, 0), reader.integers(node, 1, "axes")
    if isinstance(value, list):
        return value
    if axes is None:
        raise reader.refuse(node, "of every axis, the batch among them, is not known")
    function = torch.squeeze if node.op_type == "Squeeze" else torch.unsqueeze
    for axis in sorted(axes, reverse=node.op_type == "Squeeze"):
        value = function(value, axis) if isinstance(value, Tensor) else reader.call(function, value, axis)
    return value
