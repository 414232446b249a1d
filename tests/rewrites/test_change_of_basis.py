"""Changes of basis: the function that is kept, and what gradients and optimizers make of them."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.change_of_basis import (
    carried,
    clip_by_basis,
    clip_by_product,
    product_energies,
    replace_parameter,
)


def factors(rank: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return (
        torch.randn(rank, 12, generator=generator, dtype=torch.float64),
        torch.randn(8, rank, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("clip", [clip_by_basis, clip_by_product])
def test_without_a_cut_the_product_stays(clip) -> None:
    basis, combination = factors()
    change = clip(basis, combination, 5)
    assert torch.allclose(change.combination @ change.basis, combination @ basis)
    assert torch.allclose(change.to_basis @ basis, change.basis)
    assert torch.allclose(combination @ change.to_combination, change.combination)


def test_the_product_is_cut_as_well_as_can_be_and_the_basis_by_itself() -> None:
    basis, combination = factors()
    u, s, v = torch.linalg.svd(combination @ basis, full_matrices=False)
    assert torch.allclose(product_energies(basis, combination), s[:5] ** 2)
    change = clip_by_product(basis, combination, 2)
    assert torch.allclose(change.combination @ change.basis, u[:, :2] * s[:2] @ v[:2])
    assert torch.allclose(change.combination.T @ change.combination, change.basis @ change.basis.T)  # balanced
    u, s, v = torch.linalg.svd(basis, full_matrices=False)
    cut = clip_by_basis(basis, combination, 2)
    assert torch.allclose(cut.combination @ cut.basis, combination @ (u[:, :2] * s[:2] @ v[:2]))


def test_a_direction_that_died_in_one_factor_is_no_trouble() -> None:
    basis, combination = factors()
    combination[:, 3] = 0
    change = clip_by_product(basis, combination, 4)
    assert torch.allclose(change.combination @ change.basis, combination @ basis)
    assert all(torch.isfinite(t).all() for t in (change.to_basis, change.to_combination))


@pytest.mark.parametrize("clip", [clip_by_basis, clip_by_product])
def test_gradients_of_the_new_factors_follow_from_those_of_the_old(clip) -> None:
    basis, combination = (f.requires_grad_() for f in factors())
    target = torch.randn(8, 12, dtype=torch.float64)
    old = torch.autograd.grad(((combination @ basis) * target).sum(), (basis, combination))
    change = clip(basis.detach(), combination.detach(), 5)
    new = [t.clone().requires_grad_() for t in (change.basis, change.combination)]
    wanted = torch.autograd.grad(((new[1] @ new[0]) * target).sum(), new)
    assert torch.allclose(change.to_combination.T @ old[0], wanted[0])
    assert torch.allclose(old[1] @ change.to_basis.T, wanted[1])


def test_an_optimizer_keeps_the_place_the_settings_and_the_memory_of_a_replaced_parameter() -> None:
    old, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([{"params": [other, old], "lr": 0.5}, {"params": [nn.Parameter(torch.ones(1))]}])
    old.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    average = optimizer.state[old]["exp_avg"].clone()
    new = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    factor = {False: 2.0, True: 4.0}
    move = lambda value, squared: factor[squared] * value  # noqa: E731
    replace_parameter(optimizer, old, new, [lambda key, value: carried(key, value, move)] * 2)
    assert optimizer.param_groups[0]["params"] == [other, *new] and old not in optimizer.state
    assert torch.equal(optimizer.state[new[0]]["exp_avg"], 2 * average)
    assert torch.allclose(optimizer.state[new[1]]["exp_avg_sq"], 4 * 0.001 * torch.tensor([1.0, 4.0, 9.0]))
    assert int(optimizer.state[new[0]]["step"]) == 1
    new[0].grad = torch.ones(3)
    optimizer.step()
    assert int(optimizer.state[new[0]]["step"]) == 2
    with pytest.raises(InvalidArgument, match="does not hold"):
        replace_parameter(optimizer, old, new, [])
    assert torch.equal(carried("unknown", torch.ones(3), move), torch.zeros(3))
