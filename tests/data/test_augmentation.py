"""Augmentation against slicing and mirroring in NumPy, image by image."""

import numpy as np
import pytest
import torch

from spokeshave.data.augmentation import Augmentation, crop_and_flip
from spokeshave.errors import InvalidArgument


def photographs(count: int = 32, height: int = 7, width: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crop_and_flip_equal_slicing_of_the_padded_image(pad: int) -> None:
    images = photographs()
    augment = Augmentation(pad=pad, flip=True)
    top, left, mirrored = augment.draw(len(images), torch.Generator().manual_seed(5))
    got = crop_and_flip(images, pad, top, left, mirrored).numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    for i in range(len(images)):
        crop = padded[i, :, top[i] : top[i] + 7, left[i] : left[i] + 9]
        assert np.array_equal(got[i], crop[:, :, ::-1] if mirrored[i] else crop)


def test_calling_applies_what_is_drawn() -> None:
    images, augment = photographs(), Augmentation(pad=2, flip=True)
    drawn = augment.draw(len(images), torch.Generator().manual_seed(9))
    assert torch.equal(augment(images, torch.Generator().manual_seed(9)), crop_and_flip(images, 2, *drawn))


def test_draws_cover_their_range() -> None:
    top, left, mirrored = Augmentation(pad=4, flip=True).draw(4000, torch.Generator().manual_seed(0))
    assert set(top.tolist()) == set(left.tolist()) == set(range(9))
    assert 0.45 < mirrored.double().mean() < 0.55
    assert not Augmentation(pad=4).draw(100, torch.Generator())[2].any()


def test_without_pad_and_flip_the_images_are_untouched() -> None:
    images = photographs()
    assert torch.equal(Augmentation()(images, torch.Generator()), images)


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="got -1"):
        Augmentation(pad=-1)
