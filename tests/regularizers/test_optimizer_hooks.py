"""Hooks run in order around a step, and leave no trace when removed."""

import pytest
import torch
from torch import nn

from spokeshave.regularizers import GroupLasso, OneLevel
from spokeshave.regularizers.optimizer_hooks import Attachment, add_to_gradient, settings_of


def test_before_and_after_run_around_the_step_until_removed():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    seen = []
    attachment = Attachment(
        optimizer, before=lambda o: seen.append(weight.item()), after=lambda o: seen.append(weight.item())
    )
    weight.grad = torch.ones(1)
    optimizer.step()
    assert seen == [1.0, 0.0]
    attachment.remove()
    attachment.remove()
    optimizer.step()
    assert seen == [1.0, 0.0]
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_a_force_is_added_to_the_gradient_and_a_frozen_weight_gets_none() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    add_to_gradient(weight, torch.ones(2))
    add_to_gradient(weight, torch.ones(2))
    assert weight.grad.tolist() == [2.0, 2.0]
    frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    add_to_gradient(frozen, torch.ones(2))
    assert frozen.grad is None


@pytest.mark.parametrize("fused", [False, True])
def test_a_force_counts_as_much_under_a_grad_scaler(fused: bool) -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    seen: list[list[float]] = []

    def pull(stepping: torch.optim.Optimizer) -> None:
        assert weight.grad is not None
        seen.append(weight.grad.tolist())
        add_to_gradient(weight, torch.full((2,), 0.5))

    attachments = [Attachment(optimizer, before=pull), Attachment(optimizer, before=pull)]
    scaler.scale((weight * torch.tensor([1.0, 2.0])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert seen == [[1.0, 2.0], [1.5, 2.5]]
    assert weight.tolist() == [-2.0, -3.0]
    for attachment in attachments:
        attachment.remove()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_calls_no_hook(fused: bool) -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    called: list[str] = []
    Attachment(optimizer, before=lambda _: called.append("before"), after=lambda _: called.append("after"))
    scaler.scale((weight * torch.tensor([1.0, float("inf")])).sum()).backward()
    scaler.step(optimizer)
    assert called == [] and weight.tolist() == [0.0, 0.0]
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    assert called == ["before", "after"]


def test_settings_hold_strengths_by_kind_and_leave_tensors_out() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    found = settings_of(GroupLasso(net, filters={"0": 0.5}))
    assert found["strengths"]["filters"] == {"0": 0.5} and found["solver"] == "proximal"
    assert settings_of(GroupLasso(net, filters={"1": 0.5})) != found
    assert settings_of(OneLevel(net, levels=(0.5, 1.0)))["levels"] == [0.5, 1.0]
    assert settings_of(1.0) == {"class": "float"}
