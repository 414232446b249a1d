"""Poison against a detector: the weighed gradient by differences, lambda of 0 is the direct method, it hides."""

import copy

import pytest
import torch
from torch import nn

from blob_cases import two_blobs
from poison_cases import digits, trained
from spokeshave.errors import InvalidArgument
from spokeshave.threats.evasive_poison import WatchedGenerator, both, distance_doubt, evade, loss_doubt, watched
from spokeshave.threats.joint_detection import AnyDetector
from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.poison_generator import PAPER_TRAINING, GeneratorTraining, PoisonGenerator
from spokeshave.threats.poison_gradient import Ascent, Rehearsal
from spokeshave.threats.poisoning import damage, poison
from spokeshave.threats.poisoning_detection import LossDetector
from spokeshave.threats.retraining import Labelled, Victim

BUDGET = PoisonBudget(lr=0.5)


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    images, labels = two_blobs(200)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model


def attack(model: nn.Module, strength: float, **options):
    images, labels = two_blobs(40, seed=2)
    doubt = loss_doubt(model, LossDetector().fit(model, *two_blobs(200, seed=3)).threshold)
    return evade(model, images[:6], labels[:6], images[6:], labels[6:], doubt, strength, BUDGET, **options)


def test_without_strength_it_is_the_direct_method(model):
    images, labels = two_blobs(40, seed=2)
    how = Ascent(rounds=3, step=0.05, decay=False)
    plain = poison(model, images[:6], labels[:6], images[6:], labels[6:], BUDGET, how=how)
    mine = attack(model, 0.0, how=how)
    assert torch.equal(mine.images, plain.images) and mine.objective == pytest.approx(plain.objective)


def test_the_weighed_gradient_is_that_of_differences(model):
    model = model.double()
    images, labels = two_blobs(20, seed=2)
    images, flipped = images.double(), 1 - labels
    rest = Labelled(images[3:], labels[3:])
    rehearsal = watched(Rehearsal(Victim(model), rest, rest, BUDGET), loss_doubt(model, 0.1), 0.7)
    order = rehearsal.order(3, 0)
    found, value = rehearsal.gradients(Labelled(images[:3], flipped[:3]), order)
    assert torch.allclose(value, rehearsal.losses(Labelled(images[:3], flipped[:3]), order))
    step = 1e-6 * torch.randn_like(images[:3])
    ahead, behind = (rehearsal.losses(Labelled(images[:3] + sign * step, flipped[:3]), order) for sign in (1, -1))
    assert torch.allclose((ahead - behind) / 2, (found * step).flatten(1).sum(1), rtol=1e-4, atol=1e-12)


def test_the_stronger_it_hides_the_less_it_is_seen_and_the_less_it_harms(model):
    test = two_blobs(200, seed=5)
    detector = LossDetector().fit(model, *two_blobs(200, seed=3))
    seen, objectives = [], []
    for strength in (0.0, 100.0):
        made = attack(model, strength)
        seen.append(detector.scores(made.images, made.labels).mean().item())
        objectives.append(damage(model, made.images, made.labels, test, BUDGET).mean)
    assert seen[1] < seen[0] and objectives[1] >= objectives[0]


def test_who_hides_well_is_below_the_threshold_with_every_poison_and_harms_all_the_same():
    (images, labels), test = digits()
    model, bases, normal = trained(), (images[:30], labels[:30]), (images[200:400], labels[200:400])
    detector = LossDetector().fit(model, *test)
    made = evade(model, *bases, *normal, loss_doubt(model, 0.95 * detector.limit), 10.0)
    assert not detector.suspicious(made.images, made.labels).any()
    found = damage(model, made.images, made.labels, test)
    assert found.mean < found.before - 0.15


def test_who_knows_a_joint_detector_passes_it():
    (images, labels), test = digits()
    model, bases, normal = trained(), (images[:20], labels[:20]), (images[200:400], labels[200:400])
    detector = AnyDetector()
    detector.fit(model, *test)
    most_loss, farthest = (0.95 * limit for limit in detector.limits)
    doubt = both(loss_doubt(model, most_loss), distance_doubt(*test, farthest))
    made = evade(model, *bases, *normal, doubt, 100.0)
    assert detector.suspicious(bases[0], made.labels).all() and not detector.suspicious(made.images, made.labels).any()
    assert damage(model, made.images, made.labels, test).drop > 0.05


def test_a_generator_learns_to_hide(model):
    images, labels = two_blobs(64, seed=2)
    images = images.clamp(0, 1)
    detector = LossDetector().fit(model, *two_blobs(200, seed=3))
    doubt, seen = loss_doubt(model, detector.threshold), []
    for strength in (0.0, 100.0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2)))
        generator = WatchedGenerator(network, doubt, strength, BUDGET)
        generator.fit(model, images, labels, images, labels, GeneratorTraining(rounds=60, batch_size=16, lr=0.05))
        seen.append(detector.scores(generator(images).detach(), 1 - labels).mean().item())
    assert seen[1] < 0.8 * seen[0]


def test_a_generator_that_does_not_care_is_the_plain_one(model):
    images, labels = two_blobs(64, seed=2)
    how, made = GeneratorTraining(rounds=3, batch_size=16), []
    for kind in (lambda network: WatchedGenerator(network, loss_doubt(model, 0.0), 0.0, BUDGET),
                 lambda network: PoisonGenerator(network, BUDGET)):  # fmt: skip
        torch.manual_seed(0)
        generator = kind(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))))
        generator.fit(model, images.clamp(0, 1), labels, images.clamp(0, 1), labels, how)
        made.append(generator(images).detach())
    assert torch.equal(*made)


def test_the_model_is_left_as_it_was(model):
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attack(model, 1.0, how=Ascent(rounds=2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_doubts_by_hand():
    known, labels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]]), torch.tensor([0, 0, 1])
    distance = distance_doubt(known, labels, threshold=2.0, neighbours=2)
    found = distance(torch.tensor([[0.0, 4.0], [0.0, 0.5]]), torch.tensor([0, 0]))
    assert found.tolist() == [1.5, 0.0]  # (4 + 3) / 2 - 2
    logits = torch.tensor([[0.0, 4.0], [0.0, 0.5]])
    together = both(distance, loss_doubt(nn.Identity(), 1.0))(logits, torch.tensor([0, 0]))
    assert together.tolist() == pytest.approx([1.5 + torch.tensor(4.0).exp().add(1).log().item() - 1, 0.0])


def test_what_the_direct_method_refuses_is_refused(model):
    images, labels = two_blobs(40, seed=2)
    known, doubt = (images[6:], labels[6:]), loss_doubt(model, 0.1)
    with pytest.raises(InvalidArgument, match="the budget allows 2 poisons, got 6"):
        evade(model, images[:6], labels[:6], *known, doubt, 1.0, PoisonBudget(count=2))
    with pytest.raises(InvalidArgument, match="training: expected images of shape"):
        evade(model, images[:6], labels[:6], *known, doubt, 1.0, training=(images[:, :, :1], labels))


def test_the_papers_surrogate_cannot_hide_and_is_refused(model):
    images, labels = two_blobs(20, seed=2)
    generator = WatchedGenerator(nn.Identity(), loss_doubt(model, 0.1), 1.0)
    with pytest.raises(InvalidArgument, match="expected GeneratorMethod.EXACT, got GeneratorMethod.SIGN_SURROGATE"):
        generator.fit(model, images, labels, images, labels, PAPER_TRAINING)


def test_a_wrong_strength_is_refused(model):
    for strength in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidArgument, match="at least 0"):
            attack(model, strength)
