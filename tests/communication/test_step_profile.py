"""The model is left as it was; the first bucket comes before the last gradient; mistakes are named."""

import time

import pytest
import torch
from torch import Tensor, nn

from spokeshave.communication.step_profile import bucket_count, gradient_sizes, profile_step
from spokeshave.communication.wire_bytes import GradientSize
from spokeshave.errors import InvalidArgument, UnsupportedLayer


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(_context, x):
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(_context, gradient):
        time.sleep(0.05)
        return gradient


class Waiting(nn.Module):
    """Its last layer's gradient, of more than a first bucket, comes 50 ms before the first layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(16, 600), nn.BatchNorm1d(600), nn.Linear(600, 500)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Slow.apply(self.norm(self.first(x))))


def test_the_first_bucket_is_there_before_the_backward_pass_ends():
    found = profile_step(Waiting(), (16,), images=4, rounds=3, threads=1)
    assert found.forward_s >= 0.02 and found.backward_s - found.first_bucket_s >= 0.05
    assert found.size == GradientSize(ternary=600 * 16 + 600 * 500, floats=600 * 3 + 500, layers=2)
    assert (found.images, found.buckets) == (4, 2)


def test_a_model_that_fits_one_bucket_is_ready_when_its_last_gradient_is():
    found = profile_step(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 4), images=2, rounds=2, threads=1)
    assert found.buckets == 1 and 0 < found.first_bucket_s <= found.backward_s
    assert found.size == GradientSize(0, 39, 0)


def test_the_model_is_left_as_it_was():
    model = Waiting().eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    threads = torch.get_num_threads()
    profile_step(model, (16,), images=2, rounds=1, threads=1)
    assert not any(module.training for module in model.modules()) and torch.get_num_threads() == threads
    assert all(torch.equal(before[name], value) and value.grad is None for name, value in model.named_parameters())
    (model(torch.zeros(2, 16)).sum()).backward()  # no hook is left that would say anything


def test_sizes_and_buckets_are_those_of_ddp():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model[0].requires_grad_(False)
    assert gradient_sizes(model) == [100, 10]
    assert [bucket_count(sizes) for sizes in ([1], [6_553_600, 262_144], [6_553_600, 1, 262_144])] == [1, 2, 2]


@pytest.mark.parametrize(
    ("model", "shape", "kind", "says"),
    [
        (nn.ReLU(), (3,), InvalidArgument, "no parameters that are trained"),
        (nn.Linear(3, 2), (4,), UnsupportedLayer, "does not run on a batch of 2 x 4"),
        (nn.LSTM(3, 2), (5, 3), None, ""),
        (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), (3,), UnsupportedLayer, r"expected scores of shape \[2"),
    ],
)
def test_models_that_cannot_be_profiled(model, shape, kind, says):
    if kind is None:  # the first of several results counts
        assert profile_step(model, shape, images=2, rounds=1, threads=1).size.elements == 56
        return
    with pytest.raises(kind, match=says):
        profile_step(model, shape, images=2, rounds=1, threads=1)


@pytest.mark.parametrize(("images", "rounds"), [(0, 1), (1, 0)])
def test_nothing_to_time(images, rounds):
    with pytest.raises(InvalidArgument, match="at least one image and one round"):
        profile_step(nn.Linear(3, 2), (3,), images=images, rounds=rounds)
