"""MixedMAT: what a batch is made of, the loss as the formula has it, drawing by step, resuming, refusals."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.data import Batches, DatasetName, load
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import SmallCNN
from spokeshave.threats.attack_guard import Guard
from spokeshave.threats.gradient_attack import Attack, fgsm
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    # Away from the ends of the range, so that a step of FGSM has its whole length everywhere.
    images = 0.4 + 0.2 * torch.rand(count, 1, 4, 4, generator=drawn)
    return images, torch.randint(3, (count,), generator=drawn)


def test_a_batch_is_clean_images_then_one_attack_each_at_a_drawn_strength() -> None:
    images, labels = batch(300)
    mat = MixedMAT(net(), [0.1, 0.02, 0.05], fgsm())
    made, targets = mat(images, labels)
    assert torch.equal(made[:300], images) and torch.equal(targets, labels.repeat(2))
    sizes = (made[300:] - images).flatten(1).abs().amax(1)
    near = (sizes[:, None] - torch.tensor([0.02, 0.05, 0.1])).abs() < 1e-5
    assert bool((near.sum(1) == 1).all())
    assert near.sum(0).min() > 70  # of 100 expected


def test_every_strength_of_every_image() -> None:
    images, labels = batch()
    made, targets = MixedMAT(net(), [0.02, 0.1], fgsm(), Drawing.ALL)(images, labels)
    assert len(made) == 48 and torch.equal(targets, labels.repeat(4))  # half of the images are clean
    assert torch.equal(made[:24], images.repeat(2, 1, 1, 1))
    for copy, strength in ((2, 0.02), (3, 0.1)):
        sizes = (made[12 * copy : 12 * (copy + 1)] - images).flatten(1).abs().amax(1)
        assert torch.allclose(sizes, torch.full((12,), strength), atol=1e-6)


def test_the_loss_is_the_formula() -> None:
    """J = a J(x) + (1 - a) / K sum_k J(x_k), each x_k attacked by hand."""
    images, labels = batch()
    model, strengths, share = net(), (0.02, 0.1), 0.3
    by_hand = share * functional.cross_entropy(model(images), labels)
    for strength in strengths:
        asking = images.clone().requires_grad_()
        gradient = torch.autograd.grad(functional.cross_entropy(model(asking), labels), asking)[0]
        attacked = (images + strength * gradient.sign()).clamp(0, 1)
        by_hand = by_hand + (1 - share) / 2 * functional.cross_entropy(model(attacked), labels)
    loss = MixedMAT(model, strengths, fgsm(), Drawing.ALL, share).loss(images, labels)
    assert torch.allclose(loss, by_hand, atol=1e-6)
    made, targets = MixedMAT(model, strengths, fgsm(), Drawing.ALL, 0.25)(images, labels)  # 8 clean of 32
    assert len(made) == 32 and torch.equal(made[:8], images[:8])
    # With one attack an image and half of the weight, it is the mean over the batch that the loop takes.
    mat, same = (MixedMAT(model, strengths, fgsm(), seed=5) for _ in range(2))
    made, targets = same(images, labels)
    assert torch.allclose(mat.loss(images, labels), functional.cross_entropy(model(made), targets), atol=1e-6)


def test_drawing_from_a_range() -> None:
    images, labels = batch(500)
    made, _ = MixedMAT(net(), [0.02, 0.1], fgsm(), Drawing.RANGE, clean_share=0)(images, labels)
    sizes = (made - images).flatten(1).abs().amax(1)
    assert len(made) == 500 and 0.02 - 1e-6 <= sizes.min() < 0.03 and 0.09 < sizes.max() <= 0.1 + 1e-6
    assert abs(float(sizes.mean()) - 0.06) < 0.005


def test_weights_say_how_often_each_strength_is_drawn() -> None:
    images, labels = batch(800)
    mat = MixedMAT(net(), [0.1, 0.02], fgsm(), clean_share=0, weights=[3.0, 1.0])
    sizes = (mat(images, labels)[0] - images).flatten(1).abs().amax(1)
    assert abs(int((sizes > 0.05).sum()) - 600) < 50  # four standard deviations
    assert mat.settings()["weights"] == [1.0, 3.0]  # beside the strengths, which rise
    for options in ({"weights": [1.0]}, {"weights": [1.0, 0.0]}, {"weights": [1.0, 1.0], "drawing": Drawing.RANGE}):
        with pytest.raises(InvalidArgument, match="weights"):
            MixedMAT(net(), [0.1, 0.02], **options)


def test_a_smaller_share_of_clean_images() -> None:
    images, labels = batch(12)
    made, targets = MixedMAT(net(), [0.1], fgsm(), clean_share=0.25)(images, labels)
    assert len(made) == 16 and torch.equal(made[:4], images[:4]) and torch.equal(targets[:4], labels[:4])


def test_strengths_rise_over_the_ramp() -> None:
    images, labels = batch(2)
    mat = MixedMAT(net(), [0.1], fgsm(), clean_share=0, ramp_steps=4)
    sizes = [float((mat(images, labels)[0] - images).abs().max()) for _ in range(6)]
    assert sizes == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], abs=1e-6)


def test_what_is_drawn_follows_from_seed_and_step() -> None:
    images, labels = batch()
    mat, other = MixedMAT(net(), [0.02, 0.1], seed=3), MixedMAT(net(), [0.02, 0.1], seed=4)
    torch.manual_seed(0)
    seventh = mat.transform(7, images, labels)[0]
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(mat.transform(7, images, labels)[0], seventh)
    assert not torch.equal(mat.transform(8, images, labels)[0], seventh)
    assert not torch.equal(other.transform(7, images, labels)[0], seventh)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


class Trap(nn.Module):
    """Wrong in a belt that short steps end in, its gradient being nothing there; one long step jumps over it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        distance = images.flatten(1).mean(1) - 0.5
        trapped = (distance > -0.25) & (distance < -0.05)
        right = torch.where(trapped, -1.0, 1.0) + torch.where(trapped, 0.0, distance - distance.detach())
        return self.scale * torch.stack([right, -right], 1)


def test_the_guard_gives_the_attack_more_steps_and_says_so() -> None:
    model, images = Trap(), torch.full((8, 1, 2, 2), 0.5)
    labels = torch.zeros(8, dtype=torch.int64)
    mat = MixedMAT(model, [0.3], fgsm(), guard=Guard(every=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mat(images, labels)  # looks at the end of every second step only
    with pytest.warns(
        RuntimeWarning, match=r"step 1: accuracy under FGSM is 100 points above .* 4 steps in place of 1"
    ):
        mat(images, labels)
    assert mat.report() == {"attack_steps": 4, "gradients": 5, "gap": 1.0}
    other = MixedMAT(model, [0.3], fgsm(), guard=Guard(every=2))
    other.load_state_dict(mat.state_dict())
    assert (other.attack, other.step, other.gap, other.gradients) == (mat.attack, 2, 1.0, 5)
    looking = MixedMAT(model, [0.3], fgsm(), guard=Guard(every=1, most=1))
    looking(images, labels)
    assert looking.report() == {"attack_steps": 1, "gradients": 1, "gap": 1.0}
    rising = MixedMAT(model, [0.3], fgsm(), guard=Guard(every=1), ramp_steps=10)
    rising(images, labels)
    assert rising.gap == 0.0  # at a tenth of the strength, where the trap is not reached
    assert MixedMAT(model, [0.3], fgsm(), guard=None)(images, labels)[0].shape[0] == 16


def test_training_killed_and_resumed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    splits = load(DatasetName.DIGITS)
    part, held_out = splits.train.subset(range(128)), splits.test.subset(range(64))
    settings = TrainSettings(epochs=3, learning_rate=0.05)

    def trained(folder: Path, steps: int, resume: bool = False) -> nn.Module:
        torch.manual_seed(0)
        model = SmallCNN(width=4, hidden=8)
        mat = MixedMAT(model, [0.1, 0.3], guard=Suspicious(every=5))
        batches = Batches(part, 32, 0, drop_last=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            history = train(
                model, batches, Batches(held_out, 64, 0), settings, run_dir=folder, resume=resume,
                transform=Stopping(mat, steps),
            )  # fmt: skip
        assert history.rows[-1]["transform"]["attack_steps"] >= 4
        return model

    class Suspicious(Guard):
        """Finds a gap whatever it looks at."""

        def measure(self, *_: object) -> float:
            return 0.5

    class Stopping:
        """Passes on to MixedMAT, and dies at a step."""

        def __init__(self, mat: MixedMAT, last: int) -> None:
            self.mat, self.last = mat, last

        def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if step == self.last:
                raise KeyboardInterrupt
            return self.mat.transform(step, inputs, labels)

        def __getattr__(self, name: str) -> object:
            return getattr(self.mat, name)

    whole = trained(tmp_path / "whole", 99)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", 10)
    resumed = trained(tmp_path / "killed", 99, resume=True)
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strengths": []}, "at least one"),
        ({"strengths": [0.1, 0.0]}, "above 0"),
        ({"strengths": [float("nan")]}, "above 0"),
        ({"strengths": [0.1], "clean_share": 0.7}, "at most 0.5"),
        ({"strengths": [0.1], "clean_share": 1.0, "drawing": Drawing.ALL}, "without 1"),
        ({"strengths": [0.1], "ramp_steps": -1}, "ramp_steps"),
    ],
)
def test_bad_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        MixedMAT(net(), **options)


def test_bad_batches_and_models_are_refused_at_the_first_step() -> None:
    images, labels = batch()
    with pytest.raises(InvalidArgument, match=r"0\.\.1, got 10[0-9.]+\.\.15[0-9.]+;"):
        MixedMAT(net(), [0.1])(255 * images, labels)
    with pytest.raises(InvalidArgument, match="probabilities"):
        MixedMAT(nn.Sequential(net(), nn.Softmax(1)), [0.1])(images, labels)

    class Rounded(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.flatten(1).sum(1).round(), -images.flatten(1).sum(1).round()], 1)

    with pytest.raises(UnsupportedLayer, match="Rounded"):
        MixedMAT(Rounded(), [0.1])(images, labels)


def test_the_attack_can_be_chosen() -> None:
    images, labels = batch()
    mat = MixedMAT(net(), [0.1], Attack(3, 0.5))
    assert mat.settings()["attack"]["steps"] == 3
    assert mat(images, labels)[0].shape[0] == 24
