"""The guard's measurement against accuracies found by hand, and the attack that it changes to."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attack_guard import Guard, stronger
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd
from spokeshave.threats.perturbation import Norm


class Trap(nn.Module):
    """Wrong where the image is 0.05 to 0.25 darker than 1/2, with no gradient there; else it leads to the dark."""

    def forward(self, images: Tensor) -> Tensor:
        distance = images.flatten(1).mean(1) - 0.5
        trapped = (distance > -0.25) & (distance < -0.05)
        right = torch.where(trapped, -1.0, 1.0) + torch.where(trapped, 0.0, distance - distance.detach())
        return torch.stack([right, -right], 1)


def test_the_gap_is_fgsm_above_pgd() -> None:
    """One step of 0.3 ends beyond the trap, ten of 0.075 in it; with 0.2 both end in it, with 0.04 before it."""
    images, labels = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    before = images.clone(), torch.get_rng_state()
    gaps = [Guard().measure(Trap().train(), images, labels, strength, fgsm()) for strength in (0.3, 0.2, 0.04)]
    assert gaps == [1.0, 0.0, 0.0]
    assert torch.equal(images, before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_a_trained_network_under_both_attacks() -> None:
    """The gap equals what the two attacks give when they are run by themselves."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    images, labels = torch.rand(200, 1, 4, 4), torch.randint(4, (200,))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    right = [
        float((model(attack(model, images, labels, 0.05)).argmax(1) == labels).float().mean())
        for attack in (fgsm(), pgd(10, start=False))
    ]
    gap = Guard(images=200).measure(model, images, labels, 0.05, fgsm())
    assert gap == pytest.approx(right[0] - right[1], abs=1e-6) and gap > 0
    assert Guard(images=50).measure(model, images, labels, 0.05, fgsm()) != gap  # of fewer images


def test_stronger_attacks_keep_norm_and_precision_and_stop_at_the_most() -> None:
    attack = Attack(1, 1.25, Norm.L2, True, torch.bfloat16)
    assert stronger(attack) == Attack(4, 0.4, Norm.L2, True, torch.bfloat16)
    assert stronger(Attack(4, 0.4)) == Attack(8, 0.3125, random_start=True)
    assert stronger(pgd(10)) == pgd(10) and stronger(Attack(20, 0.1)).steps == 20
    assert stronger(fgsm(), most=2).steps == 2


@pytest.mark.parametrize("options", [{"every": 0}, {"gap": 1.5}, {"steps": 1}, {"images": 0}])
def test_numbers_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidArgument, match="guard"):
        Guard(**options)
