"""Hooks run in order around a step, and leave no trace when removed."""

import torch

from spokeshave.regularizers.optimizer_hooks import Attachment, add_to_gradient


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
