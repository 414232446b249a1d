"""One pass over stacked members against each member's own transform."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.models import SmallCNN
from spokeshave.structures.member_stack import MemberStack
from spokeshave.threats.attack_guard import Guard
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.stacked_mat import StackedMAT

STRENGTHS = (0.05, 0.1, 0.3)


def networks() -> list[nn.Module]:
    return [SmallCNN(size=8, width=4, hidden=8, batch_norm=True) for _ in STRENGTHS]


def mats(members: list[nn.Module], attack: Attack, drawing: Drawing = Drawing.ONE) -> list[MixedMAT]:
    pairs = zip(members, STRENGTHS, strict=True)
    return [
        MixedMAT(member, [strength], attack, drawing, guard=None, seed=7 + number)
        for number, (member, strength) in enumerate(pairs)
    ]


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8), torch.randint(0, 10, (6,))


# Steps of 1 follow signs, which rounding turns where a gradient is next to nothing: L2 has no such places.
@pytest.mark.parametrize("drawing", [Drawing.ONE, Drawing.ALL])
@pytest.mark.parametrize("attack", [pgd(3, norm=Norm.L2), fgsm(start=True, norm=Norm.L2), fgsm(norm=Norm.L2)])
def test_a_stack_trains_on_what_its_members_would_train_on(attack: Attack, drawing: Drawing) -> None:
    members = networks()
    images, labels = batch()
    stack = MemberStack(members)
    together = StackedMAT(stack, mats([stack] * 3, attack, drawing))
    for step in (0, 1, 5):
        made, targets = together.transform(step, images, labels)
        wanted = [mat.transform(step, images, labels) for mat in mats(members, attack, drawing)]
        torch.testing.assert_close(made, torch.cat([one for one, _ in wanted]), rtol=1e-4, atol=1e-5)
        assert torch.equal(targets, torch.cat([one for _, one in wanted]))


def test_members_whose_guard_has_acted_are_attacked_by_their_own_attack() -> None:
    members = networks()
    images, labels = batch()
    stack = MemberStack(members)
    found, alone = mats([stack] * 3, fgsm(norm=Norm.L2)), mats(members, fgsm(norm=Norm.L2))
    for crew in (found, alone):
        crew[1].attack = pgd(4, norm=Norm.L2)
    made, _ = StackedMAT(stack, found).transform(3, images, labels)
    wanted = torch.cat([mat.transform(3, images, labels)[0] for mat in alone])
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_the_stack_is_left_as_it_was() -> None:
    stack = MemberStack(networks()).train()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    StackedMAT(stack, mats([stack] * 3, pgd(2))).transform(0, *batch())
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())
    assert stack.training and all(parameter.grad is None for parameter in stack.parameters())


def test_its_state_and_settings_are_those_of_the_members() -> None:
    stack = MemberStack(networks())
    together = StackedMAT(stack, mats([stack] * 3, fgsm()))
    together.members[2].attack = replace(fgsm(), steps=8)
    other = StackedMAT(stack, mats([stack] * 3, fgsm()))
    other.load_state_dict(together.state_dict())
    assert [report["attack_steps"] for report in other.report()["members"]] == [1, 1, 8]
    assert [one["strengths"] for one in other.settings()["members"]] == [[0.05], [0.1], [0.3]]


def test_unlike_members_are_refused() -> None:
    stack = MemberStack(networks())
    found = mats([stack] * 3, fgsm())
    with pytest.raises(InvalidArgument, match="expected 3, one for each of the stack, got 2"):
        StackedMAT(stack, found[:2])
    found[1] = MixedMAT(stack, [0.1], clean_share=0.25, guard=Guard())
    with pytest.raises(InvalidArgument, match="must agree in drawing, clean_share"):
        StackedMAT(stack, found)
