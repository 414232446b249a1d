"""The operator against a dense product; its fake kernel; its gradients."""

import pytest
import torch
from torch import Tensor

from sparse_cases import error
from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse.compiled_layer import Kernel
from spokeshave.targets.cpu_sparse.sparse_linear_op import sparse_linear


def case(rows: int, features: int, dtype=torch.float32) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, list[int]]]:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, features, generator=generator, dtype=dtype)
    weight[torch.rand(weight.shape, generator=generator) > 0.3] = 0
    places = weight.flatten().nonzero().flatten()
    bias = torch.randn(rows, generator=generator, dtype=dtype)
    return weight, (weight.flatten()[places], places.int(), bias, [rows, features])


@pytest.mark.parametrize(("rows", "features"), [(10, 30), (1, 5), (70, 129)])
@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("rectify", [False, True])
def test_it_matches_the_dense_product(rows, features, kernel, rectify):
    weight, given = case(rows, features)
    for images in (1, 3, 19):
        x = torch.randn(images, features)
        wanted = x.double() @ weight.double().T + given[2].double()
        got = torch.ops.spokeshave.sparse_linear(x, *given, rectify, kernel.value)
        assert error(got, wanted.relu() if rectify else wanted) < 1e-5


def test_opcheck():
    _, given = case(10, 30)
    done = torch.library.opcheck(sparse_linear, (torch.randn(3, 30), *given, True))
    done |= torch.library.opcheck(sparse_linear, (torch.randn(3, 30, requires_grad=True), *given, False))
    assert set(done.values()) == {"SUCCESS"}


@pytest.mark.parametrize("rectify", [False, True])
def test_gradients_match_finite_differences(rectify):
    _, (values, places, bias, shape) = case(6, 8, torch.float64)
    tensors = [torch.randn(3, 8, dtype=torch.float64), values, bias]
    for tensor in tensors:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v, b: sparse_linear(x, v, places, b, shape, rectify), tensors)


def test_arguments_that_do_not_fit_are_refused():
    _, given = case(6, 8)
    with pytest.raises(InvalidArgument, match="x: expected"):
        sparse_linear(torch.zeros(1, 9), *given, False)
    with pytest.raises(InvalidArgument, match="bias"):
        sparse_linear(torch.zeros(1, 8), *given[:2], torch.zeros(5), given[3], False)
