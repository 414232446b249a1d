"""SmallCNN: parameters counted by hand, normalization of images inside."""

import torch

from spokeshave.models import SmallCNN
from spokeshave.models.small_cnn import folded_convolution


def test_parameters_are_those_of_the_paper() -> None:
    model = SmallCNN()
    by_hand = (16 * 16 + 16) + (32 * 16 * 16 + 32) + (32 * 49 * 100 + 100) + (100 * 10 + 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == 166_406


def test_images_are_normalized_inside() -> None:
    torch.manual_seed(0)
    model = SmallCNN(3, 32, 8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    torch.manual_seed(0)
    bare = SmallCNN(3, 32, 8)
    images = torch.rand(2, 3, 32, 32)
    shifted = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.5]).view(3, 1, 1)
    assert torch.allclose(model(images), bare(shifted), atol=1e-5)
    assert {"mean", "std"} <= set(model.state_dict())


def test_batch_normalization_is_an_option() -> None:
    model = SmallCNN(width=4, hidden=8, batch_norm=True)
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10) and model.conv1.bias is None
    assert int(model.norm1.num_batches_tracked) == 1


def test_the_folded_convolution_is_the_convolution() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 5, 4, stride=2, padding=1).double()
    images = torch.rand(2, 3, 12, 8, dtype=torch.float64, requires_grad=True)
    pairs = [
        torch.autograd.grad(made.sin().sum(), (images, layer.weight, layer.bias))
        for made in (layer(images), folded_convolution(images, layer))
    ]
    assert torch.allclose(layer(images), folded_convolution(images, layer), atol=1e-12)
    assert all(torch.allclose(one, two, atol=1e-12) for one, two in zip(*pairs, strict=True))
