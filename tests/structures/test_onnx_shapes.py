"""Graphs that compute, join, cut and reorder, and those that compute a shape, against onnxruntime."""

import numpy as np
import pytest
import torch
from onnx import helper

from onnx_cases import by_onnxruntime, graph
from spokeshave.errors import UnsupportedLayer
from spokeshave.structures.onnx_graph import load_onnx

node = helper.make_node
INTS = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1]), "twelve": np.array([12])}


def check(nodes, shape, constants=None, opset: int = 17, batches=(1, 3)) -> None:
    model = graph(nodes, shape, constants, opset)
    read = load_onnx(model)
    for images in batches:
        x = torch.randn(images, *shape[1:])
        with torch.no_grad():
            torch.testing.assert_close(read(x), by_onnxruntime(model, x)[0])


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_arithmetic_with_constants_and_with_values(operator):
    for constant in (np.float32(2.5), np.array([[[1.0]], [[-2.0]]], np.float32)):
        check([node(operator, ["x", "c"], ["y"])], ("n", 2, 3, 3), {"c": constant})
        check([node(operator, ["c", "x"], ["y"])], ("n", 2, 3, 3), {"c": constant})
    check([node("Exp", ["x"], ["e"]), node(operator, ["x", "e"], ["y"])], ("n", 4))


def test_sums_of_three():
    check([node("Exp", ["x"], ["e"]), node("Sum", ["x", "e", "x"], ["y"])], ("n", 4))


def test_a_bias_joins_its_layer_only_where_nobody_else_reads_the_product():
    weight = {"w": np.ones((4, 4), np.float32), "b": np.arange(4, dtype=np.float32)}
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["s"]), node("Mul", ["m", "s"], ["y"])]
    check(nodes, ("n", 4), weight)


def test_joining_and_cutting():
    nodes = [node("Split", ["x", "sizes"], ["a", "b"], axis=1), node("Concat", ["b", "a", "b"], ["y"], axis=1)]
    check(nodes, ("n", 5, 2, 2), {"sizes": np.array([2, 3])})
    check([node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), node("Relu", ["b"], ["y"])], ("n", 5), opset=18)
    check([node("Slice", ["x", "s", "e", "a"], ["y"])], ("n", 6, 4),
          {"s": np.array([1, 0]), "e": np.array([5, 3]), "a": np.array([1, 2])})  # fmt: skip
    check([node("Gather", ["x", "i"], ["y"], axis=1)], ("n", 6, 4), {"i": np.array([3, 1])})
    check([node("Gather", ["x", "i"], ["y"], axis=1)], ("n", 6, 4), {"i": np.array(3)})


def test_reordering():
    check([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], ("n", 2, 3, 4))
    check([node("Unsqueeze", ["x", "a"], ["u"]), node("Squeeze", ["u", "b"], ["y"])], ("n", 4),
          {"a": np.array([1, 3]), "b": np.array([1])})  # fmt: skip
    check([node("Flatten", ["x"], ["y"])], ("n", 2, 3, 4))
    check([node("Cast", ["x"], ["c"], to=11), node("Cast", ["c"], ["y"], to=1)], ("n", 4))
    check([node("Identity", ["x"], ["i"]), node("Dropout", ["i"], ["y"])], ("n", 4))


@pytest.mark.parametrize("target", [[0, -1], [-1, 12], [0, 3, 4], [0, 0, 2, -1]])
def test_reshapes_of_a_free_batch(target):
    check([node("Reshape", ["x", "t"], ["y"])], ("n", 3, 2, 2), {"t": np.array(target)})


@pytest.mark.parametrize("target", [[1, -1], [1, 12], [1, 3, -1], [1, 4, 3]])
def test_a_batch_that_the_file_fixes_becomes_free(target):
    model = graph([node("Reshape", ["x", "t"], ["y"])], (1, 3, 2, 2), {"t": np.array(target)})
    x = torch.randn(5, 3, 2, 2)
    wanted = torch.cat([by_onnxruntime(model, image[None])[0] for image in x])
    torch.testing.assert_close(load_onnx(model)(x), wanted)


def test_shapes_that_the_network_computes():
    """x.view(x.size(0), -1) and x.view(x.size(0), 12) as exporters write them."""
    for last in ("rest", "twelve"):
        nodes = [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axis"], ["u"]),
            node("Cast", ["u"], ["c"], to=7),
            node("Concat", ["c", last], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ]
        check(nodes, ("batch", 3, 2, 2), INTS)
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "axis", "one"], ["n"]),
        node("Mul", ["n", "three"], ["m"]),
        node("Concat", ["m", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    check(nodes, ("batch", 3, 2, 2), INTS | {"one": np.array([1]), "three": np.array([3])})


def test_constants_are_folded():
    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    nodes = [
        node("Constant", [], ["two"], value_float=2.0),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("Mul", ["t", "two"], ["m"]),
        node("Reshape", ["m", "shape"], ["r"]),
        node("MatMul", ["x", "r"], ["y"]),
    ]
    check(nodes, ("n", 4), {"w": weight, "shape": np.array([0, -1])})


def test_what_mixes_images_is_refused():
    for odd in (node("Flatten", ["x"], ["y"], axis=2), node("Transpose", ["x"], ["y"])):
        with pytest.raises(UnsupportedLayer, match="batch"):
            load_onnx(graph([odd], ("n", 2, 3)))
