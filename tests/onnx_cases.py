"""What the tests of ONNX networks share: graphs made by hand, exports, and onnxruntime as the judge."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


def graph(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    sparse: tuple[onnx.SparseTensorProto, ...] = (),
) -> onnx.ModelProto:
    """A network of float32 values from x to y."""
    made = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        sparse_initializer=list(sparse),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    with suppress(onnx.shape_inference.InferenceError):
        model = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:  # a valid network says at least how many axes there are
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            kind.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension() for _ in shape]))
    return model


def by_onnxruntime(model: onnx.ModelProto, x: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(part) for part in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


def exported(network: nn.Module, x: Tensor, path: Path, dynamo: bool, free_batch: bool) -> onnx.ModelProto:
    network.eval()
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if free_batch else None
        torch.onnx.export(network, (x,), path, dynamo=True, verbose=False, dynamic_shapes=shapes, external_data=False)
    else:
        axes = {"x": {0: "batch"}, "y": {0: "batch"}} if free_batch else None
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes)
    return onnx.load(path)
