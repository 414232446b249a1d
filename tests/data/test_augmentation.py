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


@pytest.mark.parametrize("pad", [0, 2])
def test_smaller_crops_are_slices_anywhere_in_the_image(pad: int) -> None:
    images, augment = photographs(), Augmentation(pad=pad, flip=True, crop=5)
    top, left, mirrored = augment.draw(len(images), torch.Generator().manual_seed(3), spare=(2, 4))
    got = augment(images, torch.Generator().manual_seed(3)).numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    assert got.shape == (32, 3, 5, 5)
    for i in range(len(images)):
        crop = padded[i, :, top[i] : top[i] + 5, left[i] : left[i] + 5]
        assert np.array_equal(got[i], crop[:, :, ::-1] if mirrored[i] else crop)
    tops, lefts, _ = augment.draw(4000, torch.Generator().manual_seed(0), spare=(2, 4))
    assert set(tops.tolist()) == set(range(2 * pad + 3)) and set(lefts.tolist()) == set(range(2 * pad + 5))


def test_evaluation_sees_the_centre() -> None:
    images = photographs(count=2)
    assert torch.equal(Augmentation(crop=5).centre(images), images[:, :, 1:6, 2:7])
    assert torch.equal(Augmentation(pad=4, flip=True).centre(images), images)


def test_contrast_stretches_about_the_mean_of_each_channel() -> None:
    images = photographs(count=3)
    augment = Augmentation(contrast=(0.2, 1.8))
    got = augment(images, torch.Generator().manual_seed(4)).double()
    levels = images.double()
    means = levels.mean((2, 3), keepdim=True)
    factors = 0.2 + 1.6 * torch.rand(3, generator=torch.Generator().manual_seed(4)).double()
    torch.testing.assert_close(got, means + (levels - means) * factors.view(3, 1, 1, 1), rtol=1e-5, atol=1e-3)
    assert len({round(float(factor), 4) for factor in factors}) == 3


def test_contrast_leaves_crops_and_flips_as_they_are_without_it() -> None:
    images = photographs()
    plain = Augmentation(pad=1, flip=True)(images, torch.Generator().manual_seed(6))
    none = Augmentation(pad=1, flip=True, contrast=(1.0, 1.0))(images, torch.Generator().manual_seed(6))
    torch.testing.assert_close(none, plain.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("contrast", [(0.0, 1.0), (1.5, 0.5), (0.5, float("inf"))])
def test_impossible_contrasts_are_refused(contrast: tuple[float, float]) -> None:
    with pytest.raises(InvalidArgument, match="contrast"):
        Augmentation(contrast=contrast)


def test_crops_that_do_not_fit_are_refused() -> None:
    for use in (Augmentation(crop=8).centre, lambda images: Augmentation(crop=8)(images, torch.Generator())):
        with pytest.raises(InvalidArgument, match="8 pixels do not fit into images of 7 x 9"):
            use(photographs(count=1))
