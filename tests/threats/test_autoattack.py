"""AutoAttack behind our interface: what is kept on disk and found again, and what is refused."""

import sys

import pytest
import torch
from torch import nn

from attack_cases import digits, digits_network, mixed_network, small_images
from spokeshave import optional
from spokeshave.errors import InvalidArgument, MissingExtra
from spokeshave.threats import autoattack as module
from spokeshave.threats.autoattack import STANDARD, AutoAttack, Part
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.robust_accuracy import robust_accuracy, survivors

DATA = tuple(part[:12] for part in digits())
QUICK = (Part.APGD_CE,)


def counted(monkeypatch) -> list[int]:
    """Numbers of images that the package itself is asked to attack."""
    asked = []
    package = module.require("pyautoattack", "testing")
    run = package.AutoAttack.run_standard_evaluation
    monkeypatch.setattr(
        package.AutoAttack,
        "run_standard_evaluation",
        lambda self, images, *rest, **more: asked.append(len(images)) or run(self, images, *rest, **more),
    )
    return asked


def test_the_standard_version_runs_the_four_parts_with_the_packages_own_settings():
    package = module.require("pyautoattack", "testing")
    theirs, ours = (package.AutoAttack(digits_network(), eps=0.1, seed=0) for _ in range(2))
    AutoAttack()._set_up(ours, 10)
    assert ours.attacks_to_run == theirs.attacks_to_run == [part.value for part in STANDARD]
    for name in ("apgd", "apgd_targeted", "fab", "square"):
        mine, yours = vars(getattr(ours, name)), vars(getattr(theirs, name))
        assert {k: v for k, v in mine.items() if k != "logger"} == {k: v for k, v in yours.items() if k != "logger"}


def test_finished_batches_are_found_again_with_their_images(tmp_path, monkeypatch):
    attack, asked = AutoAttack(parts=QUICK, batch_size=5, folder=tmp_path), counted(monkeypatch)
    first = attack(digits_network(), *DATA, 0.1, torch.Generator().manual_seed(0))
    assert asked == [5, 5, 2] and len(list(tmp_path.iterdir())) == 3
    assert torch.equal(attack(digits_network(), *DATA, 0.1, torch.Generator().manual_seed(0)), first)
    assert asked == [5, 5, 2]
    without = AutoAttack(parts=QUICK, batch_size=5)(digits_network(), *DATA, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(without, first)


def test_a_damaged_file_is_made_again(tmp_path, monkeypatch):
    attack, asked = AutoAttack(parts=QUICK, folder=tmp_path), counted(monkeypatch)
    first = attack(digits_network(), *DATA, 0.1, torch.Generator().manual_seed(0))
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(attack(digits_network(), *DATA, 0.1, torch.Generator().manual_seed(0)), first)
    assert asked == [12, 12]


class Twice(nn.Module):
    """Other scores from the same weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.model(x)


def test_nothing_is_found_for_another_model_strength_seed_norm_image_or_setting(tmp_path, monkeypatch):
    images, labels = DATA
    asked = counted(monkeypatch)

    def run(model=None, data=DATA, strength=0.1, seed=0, norm=Norm.LINF, queries=5000) -> None:
        attack = AutoAttack(norm, QUICK, queries=queries, folder=tmp_path)
        attack(model or digits_network(), *data, strength, torch.Generator().manual_seed(seed))

    other = nn.Sequential(*[type(layer)(*size) for layer, size in ((nn.Flatten(), ()), (nn.Linear(1, 1), (100, 10)))])
    for change in (
        {}, {"model": other}, {"model": Twice(digits_network())}, {"data": (images * 0.9, labels)},
        {"data": (images, labels.roll(1))}, {"strength": 0.11}, {"seed": 1}, {"norm": Norm.L2}, {"queries": 9},
    ):  # fmt: skip
        run(**change)
    run()
    assert len(asked) == 9


def test_a_stronger_suite_leaves_fewer_standing_and_every_success_is_one():
    data = tuple(part[:30] for part in digits())
    weak, strong = (
        survivors(digits_network(), data, AutoAttack(parts=parts), [0.05])
        for parts in (QUICK, (Part.APGD_CE, Part.APGD_T))
    )
    assert bool((strong <= weak).all()) and 0 < float(strong.double().mean()) < 1


def test_networks_of_few_classes_are_attacked_with_the_parts_that_are_defined_for_them():
    images, labels = small_images(4, classes=2)
    with pytest.raises(InvalidArgument, match="apgd-t: expected a model with 4 or more classes, got 2"):
        AutoAttack()(mixed_network(2), images, labels, 0.1)
    suite = AutoAttack(parts=(Part.APGD_CE, Part.SQUARE), queries=20)
    assert robust_accuracy(mixed_network(2), (images, labels), suite, [0.5]) == [0.0]
    with pytest.raises(InvalidArgument, match="apgd-dlr: expected a model with 3"):
        AutoAttack(parts=(Part.APGD_DLR,))(mixed_network(2), images, labels, 0.1)


def test_images_that_the_package_cannot_take_are_refused():
    flat = nn.Linear(36, 5)
    unchecked = getattr(AutoAttack.__call__, "__wrapped__", AutoAttack.__call__)
    with pytest.raises(InvalidArgument, match=r"expected shape \(b, c, h, w\), got \(2, 36\)"):
        unchecked(AutoAttack(), flat, torch.rand(2, 36), torch.tensor([0, 1]), 0.1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(196, 5))
    suite = AutoAttack(Norm.L2, (Part.SQUARE,), queries=5)
    with pytest.raises(InvalidArgument, match="cannot tile 14x14 pixels with squares of 2"):
        suite(model, torch.rand(2, 1, 14, 14), torch.tensor([0, 1]), 0.1)


@pytest.mark.parametrize("size", [*range(5, 25), 28, 32])
def test_exactly_the_sizes_that_the_package_fails_on_are_refused(size):
    package = module.require("pyautoattack", "testing")
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 4))
    images = torch.rand(1, 1, size, size)
    with torch.no_grad():
        labels = model(images).argmax(1)
    suite = package.AutoAttack(model, eps=1e-3, norm="L2", seed=0)
    AutoAttack(Norm.L2, (Part.SQUARE,), queries=1)._set_up(suite, 4)
    try:
        suite.square.seed = 0
        suite.square.perturb(images, labels)
        fails = False
    except RuntimeError:
        fails = True
    try:
        module._require_tiles(size, size)
        refused = False
    except InvalidArgument:
        refused = True
    assert refused == fails


def test_the_trace_function_of_a_debugger_is_put_back():
    def trace(*_) -> None:
        return None

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        AutoAttack(parts=QUICK)(digits_network(), *(part[:2] for part in DATA), 0.1)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(earlier)


def test_it_prints_nothing(capfd):
    AutoAttack(parts=(*QUICK, Part.SQUARE), queries=5)(digits_network(), *DATA, 0.1)
    assert capfd.readouterr() == ("", "")


def test_numbers_out_of_range_and_a_missing_package_are_refused(monkeypatch):
    for wrong in ({"parts": ()}, {"queries": 0}, {"batch_size": 0}):
        with pytest.raises(InvalidArgument, match="expected at least"):
            AutoAttack(**wrong)
    monkeypatch.setattr(optional, "available", lambda name: False)
    with pytest.raises(MissingExtra, match="attacking with AutoAttack needs pyautoattack"):
        AutoAttack()(digits_network(), *DATA, 0.1)
