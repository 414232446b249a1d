from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

needed = "needs the extra onnx: pip install 'spokeshave[onnx]'"
for library in ("onnx", "onnxruntime"):
    pytest.importorskip(library, reason=needed)

from onnx_graphs import Graph, Groups, Normalization  # noqa: E402 - it needs onnx itself


def answer(path: Path, images: torch.Tensor) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(None, {"input": images.numpy()})[0]


@pytest.mark.parametrize("form", Groups)
def test_every_form_of_a_grouped_convolution_computes_what_torch_does(form: Groups, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(6, 8, (3, 5), stride=2, padding=(1, 2), groups=2), torch.randn(2, 6, 9, 11)
    expected = layer(images).detach()
    graph = Graph(tuple(images.shape))
    path = graph.save(tmp_path / "a.onnx", graph.convolve("input", layer, form), tuple(expected.shape[1:]))
    np.testing.assert_allclose(answer(path, images), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", Normalization)
def test_every_form_of_response_normalization_computes_what_torch_does(form: Normalization, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, images = nn.LocalResponseNorm(5, alpha=0.5, beta=0.75, k=2.0), torch.randn(2, 9, 3, 4)
    graph = Graph(tuple(images.shape))
    path = graph.save(tmp_path / "a.onnx", graph.normalize("input", layer, 9, form), (9, 3, 4))
    np.testing.assert_allclose(answer(path, images), layer(images).numpy(), rtol=1e-5, atol=1e-6)
