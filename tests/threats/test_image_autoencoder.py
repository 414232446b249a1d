"""Auto-encoders: shapes of any image, images that come back, the same seed the same weights, what is refused."""

import copy

import pytest
import torch

from poison_cases import digits
from spokeshave.errors import InvalidArgument
from spokeshave.threats.image_autoencoder import ConvAutoencoder, DenseAutoencoder, pretrain


def test_images_of_any_shape_come_back_in_that_shape():
    assert DenseAutoencoder((3, 5, 7), hidden=4)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5, 7)
    assert ConvAutoencoder(1, width=4)(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    with pytest.raises(InvalidArgument, match="multiples of 4"):
        ConvAutoencoder(3)(torch.rand(1, 3, 30, 32))


@pytest.mark.parametrize("make", [lambda: DenseAutoencoder((1, 8, 8), 64), lambda: ConvAutoencoder(1, 8)])
def test_after_training_images_are_much_nearer_than_their_mean(make):
    images = digits()[0][0].reshape(-1, 1, 8, 8)
    network = make()
    losses = pretrain(network, images[:1000], steps=150, lr=5e-3)
    apart = (network(images[1000:1200]).sigmoid() - images[1000:1200]).square().mean()
    assert apart < 0.6 * (images[1000:1200] - images[:1000].mean(0)).square().mean()
    assert len(losses) == 150 and losses[-1] < losses[0] and all(p.grad is None for p in network.parameters())


def test_the_seed_decides_and_the_global_state_is_not_touched():
    images = digits()[0][0][:50]
    start = DenseAutoencoder((64,), 8)
    before = torch.get_rng_state()
    nets = [copy.deepcopy(start) for _ in range(3)]
    for network, seed in zip(nets, (1, 1, 2), strict=True):
        pretrain(network, images, steps=3, batch_size=8, seed=seed)
    first, again, other = (network(images) for network in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_outside_the_range_are_refused():
    with pytest.raises(InvalidArgument, match="images: expected values in 0..1"):
        pretrain(DenseAutoencoder((4,), 2), torch.full((2, 4), 2.0))
