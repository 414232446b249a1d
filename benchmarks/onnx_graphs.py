"""ONNX graphs of AlexNet and its layers, written node by node, in the forms that the peers run fastest.

A peer may run one form of the same network much slower than another: DeepSparse gives convolutions with groups and
response normalization to another engine. Each is measured on every form that it takes, and its best one counts.
Opset 13, which all of them read.
"""

from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

try:
    import onnx
except ModuleNotFoundError as error:
    raise SystemExit("the peers are given ONNX files: install the extra first, pip install '.[onnx]'") from error
from onnx import TensorProto, helper, numpy_helper
from torch import nn

_OPSET = 13
_IR = 8


class Groups(Enum):
    """How a convolution with two groups is written."""

    ATTRIBUTE = "group=2"
    SPLIT = "split"
    BLOCK_DIAGONAL = "block-diagonal"


class Normalization(Enum):
    """How response normalization is written."""

    NODE = "LRN"
    PRODUCTS = "LRN as a 1x1 convolution"


class Graph:
    """An ONNX graph under construction.

    Args:
        shape: of the input, images first.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: np.ndarray) -> str:
        """Name of a new constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; the name of its output, or a list of names."""
        names = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def save(self, path: Path, output: str, features: tuple[int, ...]) -> Path:
        """Write the graph, whose result is `output` of shape (images, *features)."""
        tensors = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("input", self.shape), (output, (self.shape[0], *features)))
        ]
        graph = helper.make_graph(self.nodes, path.stem, tensors[:1], tensors[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    def convolve(self, source: str, layer: nn.Conv2d, form: Groups = Groups.ATTRIBUTE) -> str:
        """Append a convolution with its bias."""
        assert layer.bias is not None
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        row, column = (int(side) for side in layer.padding)
        shape = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": (row, column, row, column)}
        groups = layer.groups
        if groups > 1 and form is Groups.SPLIT:
            parts = self.add("Split", source, outputs=groups, axis=1)
            halves = [
                self.add("Conv", part, self.constant(filters), self.constant(offsets), **shape)
                for part, filters, offsets in zip(parts, np.split(weight, groups), np.split(bias, groups), strict=True)
            ]
            return self.add("Concat", *halves, axis=1)
        if groups > 1 and form is Groups.BLOCK_DIAGONAL:
            weight, groups = block_diagonal(weight, groups), 1
        return self.add("Conv", source, self.constant(weight), self.constant(bias), group=groups, **shape)

    def normalize(self, source: str, layer: nn.LocalResponseNorm, channels: int, form: Normalization) -> str:
        """Append response normalization across channels."""
        if form is Normalization.NODE:
            return self.add("LRN", source, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)
        assert layer.beta == 0.75, "x^0.75 is written as sqrt(x) * sqrt(sqrt(x))"
        distance = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels)))
        band = (distance <= layer.size // 2).astype(np.float32)[:, :, None, None] * (layer.alpha / layer.size)
        offset = np.full(channels, layer.k, np.float32)
        squares = self.add("Mul", source, source)
        sums = self.add("Conv", squares, self.constant(band.astype(np.float32)), self.constant(offset))
        root = self.add("Sqrt", sums)
        return self.add("Div", source, self.add("Mul", root, self.add("Sqrt", root)))


def block_diagonal(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights of a convolution without groups that computes the same, zeros between the groups.

    Example:
        >>> block_diagonal(np.array([2.0, 3.0]).reshape(2, 1, 1, 1), 2)[:, :, 0, 0].tolist()
        [[2.0, 0.0], [0.0, 3.0]]
    """
    filters, channels = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((len(weight), channels * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * filters, (group + 1) * filters)
        whole[rows, group * channels : (group + 1) * channels] = weight[rows]
    return whole


def save_layer(path: Path, layer: nn.Conv2d, images: tuple[int, ...], features: tuple[int, ...]) -> Path:
    """Write a convolution followed by ReLU."""
    graph = Graph(images)
    return graph.save(path, graph.add("Relu", graph.convolve("input", layer)), features)


def save_alexnet(
    path: Path, network: nn.Module, images: tuple[int, ...], groups: Groups, normalization: Normalization
) -> Path:
    """Write a whole CaffeNet (`spokeshave.models.AlexNet` with pooling before normalization)."""
    graph = Graph(images)
    layers: dict[str, Any] = dict(network.named_children())

    def pool(source: str) -> str:
        return graph.add("MaxPool", source, kernel_shape=(3, 3), strides=(2, 2), ceil_mode=1)

    value = "input"
    for number in range(1, 6):
        value = graph.add("Relu", graph.convolve(value, layers[f"conv{number}"], groups))
        if number in (1, 2, 5):
            value = pool(value)
        if number in (1, 2):
            channels = layers[f"conv{number}"].out_channels
            value = graph.normalize(value, layers[f"norm{number}"], channels, normalization)
    value = graph.add("Flatten", value, axis=1)
    for name in ("fc6", "fc7", "fc8"):
        weight, bias = (layers[name].get_parameter(part).detach().numpy() for part in ("weight", "bias"))
        value = graph.add("Gemm", value, graph.constant(weight), graph.constant(bias), transB=1)
        if name != "fc8":
            value = graph.add("Relu", value)
    return graph.save(path, value, (layers["fc8"].out_features,))
