"""Layers of graphs made by hand against onnxruntime."""

import numpy as np
import pytest
import torch
from onnx import helper

from onnx_cases import by_onnxruntime, graph
from sparse_cases import error
from spokeshave.errors import UnsupportedLayer
from spokeshave.structures.onnx_graph import load_onnx

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def check(operator: str, shape: tuple[int, ...], constants=None, opset: int = 17, **attributes) -> None:
    constants = constants or {}
    model = graph([helper.make_node(operator, ["x", *constants], ["y"], **attributes)], ("n", *shape), constants, opset)
    for images in (1, 3):
        x = torch.randn(images, *shape, generator=torch.Generator().manual_seed(images))
        with torch.no_grad():
            got, (wanted,) = load_onnx(model)(x), by_onnxruntime(model, x)
        assert got.shape == wanted.shape and error(got, wanted) < 1e-5


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 1, 2], "strides": [2, 1]},
        {"pads": [0, 1, 2, 1], "dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        {"auto_pad": "VALID", "strides": [2, 2]},
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_convolutions(attributes, group):
    check("Conv", (4, 11, 10), {"w": normal(6, 4 // group, 3, 2), "b": normal(6)}, group=group, **attributes)


def test_convolutions_along_one_and_three_axes():
    check("Conv", (4, 11), {"w": normal(6, 4, 3)}, pads=[2, 1])
    check("Conv", (2, 5, 6, 7), {"w": normal(3, 2, 3, 2, 1)})


@pytest.mark.parametrize("given", [{}, {"transB": 1, "alpha": 0.5, "beta": 2.0}])
def test_general_products(given):
    weight = normal(7, 5) if given else normal(5, 7)
    for bias in (normal(7), normal(1, 7), normal(1)):
        check("Gemm", (5,), {"w": weight, "c": bias}, **given)
    check("Gemm", (5,), {"w": weight}, **given)
    check("MatMul", (5,), {"w": normal(5, 7)})
    check("MatMul", (3, 5), {"w": normal(5, 7)})


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 2], "strides": [2, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2], "count_include_pad": 1},
    ],
)
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pooling(operator, attributes):
    if operator == "MaxPool":
        attributes = {name: value for name, value in attributes.items() if name != "count_include_pad"}
    check(operator, (3, 12, 11), **attributes)


def test_more_pooling():
    check("MaxPool", (3, 12, 12), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    check("MaxPool", (3, 12, 12), kernel_shape=[3, 3], dilations=[2, 1])
    check("AveragePool", (3, 12, 12), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    check("GlobalAveragePool", (3, 5, 7))
    check("GlobalMaxPool", (3, 5, 7))


def test_normalization():
    check("LRN", (9, 4, 4), size=5, alpha=0.1, beta=0.6, bias=2.0)
    statistics = {"s": normal(4), "b": normal(4), "m": normal(4), "v": normal(4) ** 2 + 0.1}
    check("BatchNormalization", (4, 3, 3), statistics, epsilon=1e-3)
    check("BatchNormalization", (4,), statistics)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_means_what_its_opset_says(opset, axis):
    check("Softmax", (3, 4), opset=opset, axis=axis)
    check("Softmax", (3, 4, 5), opset=opset)


@pytest.mark.parametrize("operator", "Relu Sigmoid Tanh Softplus HardSwish Exp Abs Neg Erf Reciprocal".split())
def test_elementwise(operator):
    check(operator, (3, 4))


def test_elementwise_with_numbers():
    check("LeakyRelu", (9,), alpha=0.3)
    check("Elu", (9,), alpha=0.7)
    check("HardSigmoid", (9,), alpha=0.3, beta=0.4)
    check("Clip", (9,), opset=6, min=-0.3, max=0.5)
    check("Clip", (9,), {"low": np.float32(-0.3), "high": np.float32(0.4)})
    check("ReduceMean", (3, 4, 5), axes=[2, 3], keepdims=0)
    check("ReduceMean", (3, 4, 5), {"axes": np.array([-1])}, opset=18)
    check("Pad", (2, 4, 4), {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "value": np.float32(2)})


@pytest.mark.parametrize(
    ("operator", "shape", "constants", "attributes"),
    [
        ("LRN", (4, 3, 3), {}, {"size": 4}),
        ("AveragePool", (2, 9, 9), {}, {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
        ("Gemm", (3,), {"w": normal(3, 2)}, {"transA": 1}),
        ("ReduceMean", (3,), {}, {}),
        ("Pad", (2, 4, 4), {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, {"mode": "reflect"}),
    ],
)
def test_what_torch_does_otherwise_is_refused(operator, shape, constants, attributes):
    model = graph([helper.make_node(operator, ["x", *constants], ["y"], **attributes)], (2, *shape), constants)
    with pytest.raises(UnsupportedLayer, match=rf"{operator} of opset 17.*export"):
        load_onnx(model)
