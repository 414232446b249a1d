"""Two sets in one shape: against Pillow's conversion, and where classes differ."""

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.adaptation.domain_pair import fit, pair_domains
from spokeshave.data import Split, Splits
from spokeshave.errors import DataError


def some(channels: int, side: int, classes: tuple[str, ...] = ("a", "b"), name: str = "some") -> Splits:
    images = torch.randint(0, 256, (6, channels, side, side), dtype=torch.uint8)
    split = Split(images, torch.tensor([0, 1, 0, 1, 0, 1]))
    return Splits(name, split, split, classes)


def test_both_get_one_shape_and_keep_labels() -> None:
    pair = pair_domains(some(1, 16), some(3, 28), 28, 3)
    assert pair.source.train.image_shape == pair.target.test.image_shape == (3, 28, 28)
    assert pair.source.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    planes = pair.source.train.images
    assert torch.equal(planes[:, 0], planes[:, 1]) and torch.equal(planes[:, 0], planes[:, 2])


def test_what_fits_is_left_alone() -> None:
    split = some(3, 28).train
    assert fit(split, 28, 3) is split


def test_grey_of_colour_is_pillows() -> None:
    split = some(3, 8).train
    ours = fit(split, 8, 1).images[0, 0].numpy().astype(int)
    theirs = np.asarray(Image.fromarray(split.images[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_even_images_stay_even_at_any_size() -> None:
    even = Split(torch.full((1, 1, 16, 16), 77, dtype=torch.uint8), torch.tensor([0]))
    for size in (8, 28, 31):
        assert torch.equal(fit(even, size, 1).images, torch.full((1, 1, size, size), 77, dtype=torch.uint8))


def test_other_classes_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="only in first: b; only in second: c, d"):
        pair_domains(some(1, 8, name="first"), some(1, 8, ("a", "c", "d"), "second"), 8, 1)
    with pytest.raises(DataError, match="same order"):
        pair_domains(some(1, 8), some(1, 8, ("b", "a")), 8, 1)
