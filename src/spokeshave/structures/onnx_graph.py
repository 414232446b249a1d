"""ONNX graph: a network of the ONNX exchange format (onnx.ai) as a torch module of ordinary layers.

What each operator becomes stands in `onnx_layers.py` and `onnx_shapes.py`. Arithmetic on shapes is
done while the graph is read; what depends on the batch size stays in the module, so that it runs at any.
"""

import operator
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from spokeshave.errors import CheckpointError, FileError, UnsupportedLayer
from spokeshave.files import file_error
from spokeshave.optional import require
from spokeshave.structures.onnx_layers import LAYERS
from spokeshave.structures.onnx_shapes import SHAPES
from spokeshave.structures.onnx_values import attributes, refuse_missing_data, sparse_tensor_of, tensor_of

OPERATORS = LAYERS | SHAPES
"""Name of an operator -> what reads it."""

ShapeValue = list[int | fx.Node]
"""A shape, or a part of one, whose entries may depend on the batch size."""


class OnnxReader:
    """A module under construction.

    Attributes:
        opset: version of the operators.
        shapes: value name -> its shape as far as it is known, None for a size that is not fixed.
    """

    def __init__(self, model: Any) -> None:
        onnx = require("onnx", "reading an ONNX network")
        self.opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
        self.root, self.graph = nn.Module(), fx.Graph()
        self.values: dict[str, Any] = {}
        self.shapes = _shapes(onnx, model)
        self._reads: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self._reads[name] = self._reads.get(name, 0) + 1
        for value in model.graph.output:
            self._reads[value.name] = self._reads.get(value.name, 0) + 2
        self._number = 0

    def read(self, graph: Any) -> fx.GraphModule:
        """Turn a checked graph into a module."""
        for tensor in graph.initializer:
            self.values[tensor.name] = tensor_of(tensor)
        for tensor in graph.sparse_initializer:
            self.values[tensor.values.name] = sparse_tensor_of(tensor)
        for value in graph.input:
            if value.name not in self.values:
                self.values[value.name] = self.graph.placeholder(self._free(value.name))
        for node in graph.node:
            self._node(node)
        results = [self.node(value.name) for value in graph.output]
        self.graph.output(results[0] if len(results) == 1 else tuple(results))
        return fx.GraphModule(self.root, self.graph, re.sub(r"\W", "_", graph.name) or "OnnxNetwork").eval()

    def _node(self, node: Any) -> None:
        made = OPERATORS[node.op_type](self, node)
        for name, value in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
            self.values[name] = value

    def refuse(self, node: Any, why: str) -> UnsupportedLayer:
        """The error for a node that has no counterpart."""
        return UnsupportedLayer(
            f"{node.name or node.output[0]}: {node.op_type} of opset {self.opset} {why}; export the network again with "
            "another form of this layer, or build it in torch and load the weights"
        )

    def given(self, node: Any, place: int) -> Any:
        """An input: an fx node, a constant tensor, a list of sizes, or None where it is left out."""
        return self.values[node.input[place]] if place < len(node.input) and node.input[place] else None

    def constant(self, node: Any, place: int) -> Tensor | None:
        """An input that must be known now; None where it is left out."""
        value = self.given(node, place)
        if isinstance(value, list) and all(isinstance(size, int) for size in value):
            return torch.tensor(value)
        if value is not None and not isinstance(value, Tensor):
            raise self.refuse(node, f"with an input {node.input[place]} that is computed at run time is not known")
        return value

    def integers(self, node: Any, place: int, attribute: str) -> list[int] | None:
        """Sizes or axes, which are an attribute in older opsets and an input in newer ones."""
        value = self.constant(node, place) if place < len(node.input) else None
        return attributes(node).get(attribute) if value is None else [int(part) for part in value.flatten()]

    def node(self, name: str) -> fx.Node:
        """A value as a node of the graph; a constant becomes a buffer."""
        value = self.values[name]
        if isinstance(value, list):
            value = self.call(torch.tensor, value)
        if isinstance(value, Tensor):
            place = self._free(name)
            self.root.register_buffer(place, value)
            value = self.graph.get_attr(place)
            self.values[name] = value
        return value

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Shape of a value, as far as it is known."""
        value = self.values.get(name)
        return tuple(value.shape) if isinstance(value, Tensor) else self.shapes.get(name)

    def only_read_once(self, name: str) -> bool:
        """Whether one node, and nobody else, reads a value."""
        return self._reads.get(name) == 1

    def module(self, node: Any, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Call a new layer, named like the ONNX node."""
        name = self._free(node.name or f"{node.op_type}_{self._number}")
        self._number += 1
        self.root.add_module(name, module)
        return self.graph.call_module(name, inputs)

    def call(self, function: Any, *arguments: Any, **named: Any) -> fx.Node:
        """Call a function of torch."""
        return self.graph.call_function(function, arguments, named)

    def method(self, name: str, *arguments: Any) -> fx.Node:
        """Call a method of the first argument."""
        return self.graph.call_method(name, arguments)

    def size(self, value: fx.Node, axis: int) -> fx.Node:
        """A size that is read at run time."""
        return self.call(operator.getitem, self.call(getattr, value, "shape"), axis)

    def layer(self, value: Any) -> nn.Module | None:
        """The layer that made a value, if one did."""
        if isinstance(value, fx.Node) and value.op == "call_module":
            return self.root.get_submodule(str(value.target))
        return None

    def _free(self, wanted: str) -> str:
        stem = re.sub(r"\W", "_", wanted).strip("_") or "value"
        stem = f"n{stem}" if stem[0].isdigit() else stem
        name, count = stem, 0
        while hasattr(self.root, name):
            count += 1
            name = f"{stem}_{count}"
        return name


def _shapes(onnx: Any, model: Any) -> dict[str, tuple[int | None, ...]]:
    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (RuntimeError, ValueError):  # a model that is too large for one message, or one whose shapes contradict
        known = model.graph
    return {
        value.name: tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
            for size in value.type.tensor_type.shape.dim
        )
        for value in (*known.input, *known.value_info, *known.output)
        if value.type.tensor_type.HasField("shape")
    }


def load_onnx(source: object) -> fx.GraphModule:
    """Read an ONNX network as a torch module, in eval mode.

    Args:
        source: path of a .onnx file, or an `onnx.ModelProto`.

    Returns:
        a module of ordinary layers, its forward with the network's inputs in order.

    Raises:
        FileError: there is no such file, or a file with weights is missing beside it.
        CheckpointError: the file is damaged or no ONNX network.
        UnsupportedLayer: the network has an operator that is not known here.
        MissingExtra: onnx is not installed.
    """
    onnx = require("onnx", "reading an ONNX network")
    where = str(source) if isinstance(source, str | os.PathLike) else "the given ModelProto"
    model: Any = _message(onnx, Path(source)) if isinstance(source, str | os.PathLike) else source
    if not isinstance(model, onnx.ModelProto) or not model.graph.node or not model.graph.output:
        raise CheckpointError(f"{where} holds no ONNX network (no nodes or no outputs); export it again")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_operators(model, where)
    for tensor in model.graph.initializer:
        refuse_missing_data(tensor)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise CheckpointError(
            f"{where} is no valid ONNX network: {str(error).splitlines()[0]}; export it again"
        ) from error
    except ValueError as error:  # too large for one message
        warnings.warn(f"{where} is read without ONNX's own check of it: {error}", stacklevel=2)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights before they are given theirs
        return OnnxReader(model).read(model.graph)


def _check_operators(model: Any, where: str) -> None:
    versions = {item.domain: item.version for item in model.opset_import}
    unknown: Sequence[Any] = [
        node for node in model.graph.node if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx")
    ]
    if unknown:
        names = ", ".join(
            f"{node.name or node.output[0]}: {node.domain + '.' if node.domain else ''}{node.op_type} of opset "
            f"{versions.get(node.domain, versions.get('ai.onnx', '?'))}"
            for node in unknown[:8]
        )
        raise UnsupportedLayer(
            f"{where}: operators that are not known here: {names}. Export the network without them, cut it before "
            "them, or build it in torch and load the weights"
        )


def _message(onnx: Any, path: Path) -> Any:
    protobuf = __import__("google.protobuf.message", fromlist=["DecodeError"])
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise file_error(path, "reading", error) from error
    except (protobuf.DecodeError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or no ONNX network ({error}); copy or export it again") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise FileError(
            f"{path}: weights that belong to it lie in another file, which cannot be read ({error}); copy that file "
            "beside it under its own name"
        ) from error
    return model
