"""Tensors and attributes of ONNX in torch."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onnx_cases import by_onnxruntime, graph
from spokeshave.errors import CheckpointError
from spokeshave.structures.onnx_graph import load_onnx
from spokeshave.structures.onnx_values import Operators, attributes, sparse_tensor_of, tensor_of


def sparse(name: str, dense: np.ndarray, flat: bool) -> onnx.SparseTensorProto:
    places = np.flatnonzero(dense) if flat else np.argwhere(dense)
    values = numpy_helper.from_array(dense[dense != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), f"{name}_i"), dense.shape)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_tensors_are_weights(flat):
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weight[np.abs(weight) < 0.8] = 0
    assert torch.equal(sparse_tensor_of(sparse("w", weight, flat)), torch.from_numpy(weight))
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        got = load_onnx(graph([node], ("n", 3, 6, 6), sparse=(sparse("w", weight, flat),)))(x)
    torch.testing.assert_close(got, by_onnxruntime(graph([node], ("n", 3, 6, 6), {"w": weight}), x)[0])


def test_an_index_outside_is_refused():
    odd = sparse("w", np.eye(3, dtype=np.float32), True)
    odd.indices.CopyFrom(numpy_helper.from_array(np.array([0, 4, 99])))
    with pytest.raises(CheckpointError, match="w: an index"):
        sparse_tensor_of(odd)


def test_a_tensor_with_too_few_bytes_is_refused():
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.raw_data = tensor.raw_data[:7]
    with pytest.raises(CheckpointError, match="w: the tensor is damaged"):
        tensor_of(tensor)


def test_attributes_are_python_values():
    made = helper.make_node("Odd", [], ["y"], mode="constant", axis=2, pads=[1, 2], beta=0.5)
    assert attributes(made) == {"mode": "constant", "axis": 2, "pads": [1, 2], "beta": 0.5}


def test_a_table_takes_what_it_decorates():
    table = Operators()

    @table.reads("One", "Two")
    def read(reader, node):
        return node

    assert set(table) == {"One", "Two"} and table["Two"] is read
