"""What attacks refuse: each wrong input and each kind of blocked gradient, by name; models are left as they were."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.threats.attackable import (
    require_differentiable,
    require_images,
    require_labels,
    require_logits,
    require_place,
    require_trainable,
)


class Lost(nn.Module):
    """Loses the gradient in one of many ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.way:
            case "argmax":
                return torch.nn.functional.one_hot(x.argmax(1), x.shape[1]).float()
            case "no_grad":
                with torch.no_grad():
                    return x * 2
            case "detach":
                return x.detach()
            case _:
                return x.round()


IMAGES = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))


def test_images_are_checked_and_the_range_found_is_said():
    require_images(IMAGES, "images")
    require_images(torch.tensor([[0.0, 1.0 + 1e-7]]), "images")
    wrong = {
        r"got 0..255; scale": torch.tensor([[0.0, 255.0]]),
        r"got -0.5..0.5": torch.tensor([[-0.5, 0.5]]),
        "divide bytes by 255": torch.zeros(2, 3, dtype=torch.uint8),
        r"at least one image.*\(0, 3\)": torch.zeros(0, 3),
        r"got shape \(3,\)": torch.zeros(3),
        r"NaN or infinite ones in 1 of 2 images, the first at 1": torch.tensor([[0.0, 1.0], [0.0, torch.nan]]),
    }
    for message, images in wrong.items():
        with pytest.raises(InvalidArgument, match=f"base: .*{message}"):
            require_images(images, "base")


def test_images_of_any_range_must_be_finite_all_the_same():
    require_images(IMAGES - 200, "base", any_range=True)
    with pytest.raises(
        InvalidArgument, match="base: expected finite values, got NaN or infinite ones in 3 of 3 images"
    ):
        require_images(IMAGES * torch.inf, "base", any_range=True)


def test_labels_are_checked():
    require_labels(torch.tensor([0, 1, 9]), IMAGES, "labels", 10)
    for labels in (torch.tensor([0, 1]), torch.tensor([0.0, 1, 2]), torch.tensor([0, 1, 10]), torch.tensor([-1, 0, 1])):
        with pytest.raises(InvalidArgument, match="labels: expected"):
            require_labels(labels, IMAGES, "labels", 10)
    require_labels(torch.tensor([0, 1, 10]), IMAGES, "labels")


def test_probabilities_are_told_from_logits():
    logits = torch.randn(5, 4)
    require_logits(logits, "Net")
    require_logits(logits.log_softmax(1), "Net")
    require_logits(logits.abs(), "Net")
    for scores in (logits.softmax(1), logits.softmax(1).half(), torch.eye(4)):
        with pytest.raises(InvalidArgument, match="Net: expected logits, got probabilities"):
            require_logits(scores, "Net")
    for scores in (
        torch.zeros(4),
        torch.zeros(4, 1),
        torch.zeros(4, 3, dtype=torch.int64),
        torch.full((2, 2), torch.nan),
    ):
        with pytest.raises(InvalidArgument, match="Net: expected"):
            require_logits(scores, "Net")


def test_images_of_another_precision_or_device_are_refused():
    require_place(nn.Linear(6, 3), IMAGES, "images")
    require_place(nn.ReLU(), IMAGES.double(), "images")
    for images in (IMAGES.double(), IMAGES.to("meta")):
        with pytest.raises(InvalidArgument, match="images: expected torch.float32 on cpu, as the weights of Linear"):
            require_place(nn.Linear(6, 3), images, "images")


@pytest.mark.parametrize("way", ["argmax", "no_grad", "detach", "round"])
def test_the_layer_that_loses_the_gradient_is_named(way):
    inside = nn.Sequential(nn.Linear(6, 8), Lost(way), nn.Linear(8, 3))
    with pytest.raises(UnsupportedLayer, match=r"Sequential: .*layer 1 \(Lost\)"):
        require_differentiable(inside, IMAGES)


def test_a_gradient_that_is_lost_in_the_forward_function_of_the_model_itself():
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).detach()

    with pytest.raises(UnsupportedLayer, match=r"Quantized: .*after the last layer, in the forward function"):
        require_differentiable(Quantized(), IMAGES)


def test_a_model_that_passes_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 3)).train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        require_differentiable(model, IMAGES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and all(p.grad is None for p in model.parameters())
    assert [module.training for module in model] == [True, True, True, False, True]
    assert not any(module._forward_hooks for module in model)


def test_frozen_parameters_do_not_matter_for_the_gradient_but_for_retraining():
    model = nn.Sequential(nn.Linear(6, 3)).requires_grad_(False)
    require_differentiable(model, IMAGES)
    with pytest.raises(UnsupportedLayer, match="none of its parameters is trainable"):
        require_trainable(model)
    model[0].bias.requires_grad_(True)
    require_trainable(model)
    with pytest.raises(InvalidArgument, match="Sequential: expected logits, got probabilities"):
        require_differentiable(nn.Sequential(model, nn.Softmax(1)), IMAGES)
