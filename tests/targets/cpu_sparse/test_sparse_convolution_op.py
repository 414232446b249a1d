"""The operator against torch's dense convolution, in every form; its fake kernel; its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_cases import error
from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse.compiled_layer import Kernel
from spokeshave.targets.cpu_sparse.sparse_convolution_op import output_shape, sparse_conv2d

FORMS = [
    # filters, channels of a group, kernel, stride, padding, dilation, groups
    (8, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (6, 2, (5, 3), (2, 1), (2, 0), (1, 2), 3),
    (4, 4, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (5, 1, (3, 2), (1, 3), (3, 1), (2, 1), 5),
]


def case(form, dtype=torch.float32, nonzeros: float = 0.4):
    filters, channels, kernel, stride, padding, dilation, groups = form
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(filters, channels, *kernel, generator=generator, dtype=dtype)
    weight[torch.rand(weight.shape, generator=generator) > nonzeros] = 0
    bias = torch.randn(filters, generator=generator, dtype=dtype)
    places = weight.flatten().nonzero().flatten()
    given = (weight.flatten()[places], places, bias, list(weight.shape), list(stride), list(padding), list(dilation))
    return weight, bias, (*given, groups)


def dense(x: Tensor, weight: Tensor, bias: Tensor, form, rectify: bool) -> Tensor:
    result = F.conv2d(x, weight, bias, *form[3:])
    return result.relu() if rectify else result


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("rectify", [False, True])
def test_it_matches_the_dense_convolution(form, kernel, rectify):
    weight, bias, given = case(form)
    for images, size in [(1, (9, 11)), (19, (9, 11)), (3, (12, 8))]:
        x = torch.randn(images, form[1] * form[-1], *size)
        got = torch.ops.spokeshave.sparse_conv2d(x, *given, rectify, kernel.value)
        wanted = dense(x.double(), weight.double(), bias.double(), form, rectify)
        assert got.is_contiguous() and error(got, wanted) < 1e-5
        assert tuple(got.shape) == output_shape(x.shape, *given[3:7])


@pytest.mark.parametrize("form", FORMS)
def test_opcheck(form):
    _, _, given = case(form)
    x = torch.randn(2, form[1] * form[-1], 9, 11)
    done = torch.library.opcheck(sparse_conv2d, (x, *given, True))
    done |= torch.library.opcheck(sparse_conv2d, (x.clone().requires_grad_(), *given, False))
    assert set(done.values()) == {"SUCCESS"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rectify", [False, True])
def test_gradients_are_those_of_the_dense_convolution(form, rectify):
    weight, bias, given = case(form, torch.float64)
    x = torch.randn(2, form[1] * form[-1], 9, 11, dtype=torch.float64)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    values, shift = given[0].clone().requires_grad_(), bias.clone().requires_grad_()
    weight.requires_grad_()
    bias.requires_grad_()
    factors = torch.randn_like(dense(x, weight, bias, form, rectify))
    (sparse_conv2d(one, values, given[1], shift, *given[3:], rectify) * factors).sum().backward()
    (dense(other, weight, bias, form, rectify) * factors).sum().backward()
    for got, wanted in [
        (one.grad, other.grad),
        (shift.grad, bias.grad),
        (values.grad, weight.grad.flatten()[given[1]]),  # type: ignore[union-attr]
    ]:
        torch.testing.assert_close(got, wanted)


def test_a_weight_without_nonzeros_leaves_the_bias():
    _, bias, given = case(FORMS[0], nonzeros=0.0)
    got = sparse_conv2d(torch.randn(2, 3, 5, 5), *given, False)
    torch.testing.assert_close(got, bias.reshape(1, -1, 1, 1).expand(2, -1, 5, 5))


def test_no_images_give_no_images():
    _, _, given = case(FORMS[0])
    for kernel in Kernel:
        assert sparse_conv2d(torch.zeros(0, 3, 5, 5), *given, False, kernel.value).shape == (0, 8, 5, 5)


def test_channels_last_images_are_taken():
    weight, bias, given = case(FORMS[0])
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for kernel in Kernel:
        got = sparse_conv2d(x, *given, False, kernel.value)
        assert got.is_contiguous() and error(got, dense(x, weight, bias, FORMS[0], False)) < 1e-5


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8), (1, 3, 0, 8)])
def test_images_of_another_form_are_refused(shape):
    _, _, given = case(FORMS[0])
    wanted = "smaller" if 0 in shape else "expected"
    given = given if 0 not in shape else (*given[:5], [0, 0], *given[6:])
    with pytest.raises(InvalidArgument, match=wanted):
        sparse_conv2d(torch.zeros(shape), *given, False)


def test_a_bias_of_another_length_is_refused():
    _, _, given = case(FORMS[0])
    with pytest.raises(InvalidArgument, match="bias"):
        sparse_conv2d(torch.zeros(1, 3, 8, 8), *given[:2], torch.zeros(7), *given[3:], False)
