"""Foolbox's attacks behind our interface; equal accuracies and every promise are tested in the contract of attacks."""

import os
import subprocess
import sys

import pytest
import torch

from attack_cases import digits, digits_network
from spokeshave import optional
from spokeshave.errors import InvalidArgument, MissingExtra
from spokeshave.threats.foolbox_attacks import FoolboxAttack, draw_seed, foolbox_fgsm, foolbox_pgd, load_foolbox
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd
from spokeshave.threats.perturbation import Norm


def test_images_of_fgsm_are_ours_value_by_value():
    images, labels = digits()
    ours, theirs = (attack(digits_network(), images, labels, 0.07) for attack in (fgsm(), foolbox_fgsm()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", Norm)
def test_nearly_all_images_of_pgd_are_ours(norm):
    images, labels = digits()
    attacks = pgd(10, False, norm), foolbox_pgd(10, False, norm)
    ours, theirs = (attack(digits_network(), images, labels, 0.07) for attack in attacks)
    same = (ours - theirs).abs().flatten(1).amax(1) < 1e-4
    assert float(same.double().mean()) > 0.9


def test_batches_of_any_size_give_the_same_images():
    images, labels = (part[:7] for part in digits())
    whole, parts = (FoolboxAttack(Attack(3, 0.4), size)(digits_network(), images, labels, 0.1) for size in (500, 3))
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InvalidArgument, match="batch_size: expected"):
        FoolboxAttack(fgsm(), batch_size=0)
    with pytest.raises(InvalidArgument, match="float32"):
        FoolboxAttack(Attack(dtype=torch.bfloat16))


def test_it_is_imported_without_a_warning_and_named_where_it_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "foolbox"]:
        monkeypatch.delitem(sys.modules, name)
    assert load_foolbox().__name__ == "foolbox"
    monkeypatch.setattr(optional, "available", lambda module: False)
    with pytest.raises(
        MissingExtra, match=r"attacking with Foolbox needs foolbox: pip install 'spokeshave\[attacks\]'"
    ):
        foolbox_fgsm()(digits_network(), *digits(), 0.1)


def test_seeds_come_from_the_generator_and_move_it_on():
    generator = torch.Generator().manual_seed(5)
    first, second = draw_seed(generator), draw_seed(generator)
    assert first != second and draw_seed(torch.Generator().manual_seed(5)) == first >= 0
    before = torch.get_rng_state()
    draw_seed(None)
    assert not torch.equal(before, torch.get_rng_state())


def test_it_is_imported_on_a_machine_without_git(tmp_path):
    code = "from spokeshave.threats.foolbox_attacks import load_foolbox; print(load_foolbox().__name__)"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "foolbox", done.stderr
