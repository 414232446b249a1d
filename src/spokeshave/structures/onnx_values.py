"""ONNX values: tensors and attributes of the exchange format in torch and Python, and tables of what reads a node."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spokeshave.errors import CheckpointError, FileError
from spokeshave.optional import require

Reading = Callable[[Any, Any], Any]
"""From the reader and a node to the node's value, or several as a tuple: fx nodes, constant tensors, lists of sizes."""


class Operators(dict[str, Reading]):
    """Name of an operator -> what reads it."""

    def reads(self, *names: str) -> Callable[[Reading], Reading]:
        """Decorate what reads some operators."""

        def register(function: Reading) -> Reading:
            self.update(dict.fromkeys(names, function))
            return function

        return register


def attributes(node: Any) -> dict[str, Any]:
    """Attributes of a node as Python values."""
    helper = require("onnx", "reading an ONNX network").helper
    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def refuse_missing_data(tensor: Any) -> None:
    """Raise a FileError for a tensor whose data lie in a file that was not read."""
    onnx = require("onnx", "reading an ONNX network")
    if onnx.external_data_helper.uses_external_data(tensor):
        raise FileError(
            f"{tensor.name}: its data lie in another file that was not loaded; pass the path of the model's file"
        )


def tensor_of(tensor: Any) -> Tensor:
    """An ONNX tensor in torch."""
    onnx = require("onnx", "reading an ONNX network")
    refuse_missing_data(tensor)
    try:
        return torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{tensor.name}: the tensor is damaged ({error}); export the network again") from error


def sparse_tensor_of(tensor: Any) -> Tensor:
    """An ONNX sparse tensor as a dense one in torch; indices are flat or one row an element."""
    values, indices = tensor_of(tensor.values), tensor_of(tensor.indices)
    dense = values.new_zeros(tuple(tensor.dims))
    try:
        places = (indices,) if indices.ndim == 1 else tuple(indices.T)
        (dense.view(-1) if indices.ndim == 1 else dense).index_put_(places, values)
    except IndexError as error:
        raise CheckpointError(f"{tensor.values.name}: an index is outside of the tensor ({error})") from error
    return dense
