"""Normalization against NumPy in double precision."""

import json

import numpy as np
import pytest
import torch

from spokeshave.data.normalization import ImageStandardization, Normalization, normalization_of
from spokeshave.data.splits import Split
from spokeshave.errors import InvalidArgument


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (40, 3, 6, 5), generator=generator, dtype=torch.uint8)
    return Split(images, torch.zeros(40, dtype=torch.int64))


def test_per_channel_moments_are_those_of_numpy(split: Split) -> None:
    pixels = split.images.numpy().astype(np.float64) / 255
    normalize = normalization_of(split)
    assert np.allclose(normalize.mean.flatten(), pixels.mean((0, 2, 3)), atol=1e-7)
    assert np.allclose(normalize.std.flatten(), pixels.std((0, 2, 3)), atol=1e-7)


def test_it_is_x_over_255_minus_mean_over_std(split: Split) -> None:
    normalize = Normalization.per_channel(split)
    mean, std = normalize.mean.double().numpy(), normalize.std.double().numpy()
    expected = (split.images.numpy() / 255 - mean) / std
    assert np.allclose(normalize(split.images).numpy(), expected, atol=2e-6)
    assert normalize(split.images).dtype == torch.float32


def test_the_mean_image_in_grey_levels_is_caffes(split: Split) -> None:
    expected = split.images.numpy() - split.images.numpy().mean(0)
    assert np.allclose(Normalization.per_pixel_mean(split)(split.images).numpy(), expected, atol=1e-4)


def test_scale_only_multiplies_grey_levels() -> None:
    normalize = Normalization.scale_only(1, factor=0.00390625)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert np.allclose(normalize(levels).flatten().numpy(), np.arange(256) / 256, atol=1e-6)


def test_a_constant_channel_stays_finite() -> None:
    split = Split(torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    assert torch.allclose(Normalization.per_channel(split)(split.images), torch.zeros(4, 1, 2, 2), atol=1e-7)


def test_through_json_and_back_is_bit_exact(split: Split) -> None:
    for normalize in (Normalization.per_channel(split), Normalization.per_pixel_mean(split)):
        again = Normalization.from_dict(json.loads(json.dumps(normalize.to_dict())))
        assert torch.equal(again.mean, normalize.mean)
        assert torch.equal(again.std, normalize.std)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.0], [0.0], "above 0"),
        ([0.0], [-1.0], "above 0"),
        ([float("nan")], [1.0], "finite"),
        ([0.0, 0.0], [1.0], "agree"),
    ],
)
def test_impossible_moments_are_refused(mean: list[float], std: list[float], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        Normalization(torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1))


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="3 channels"):
        Normalization.scale_only(3)(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_image_standardization_is_numpys_image_by_image() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    got = ImageStandardization()(images).numpy()
    for image, ours in zip(images.numpy().astype(np.float64), got, strict=True):
        np.testing.assert_allclose(ours, (image - image.mean()) / image.std(), rtol=1e-4, atol=1e-5)


def test_image_standardization_undoes_brightness_and_keeps_even_images_finite() -> None:
    images = torch.randint(0, 100, (2, 3, 6, 4), dtype=torch.uint8)
    torch.testing.assert_close(
        ImageStandardization()(images + 63), ImageStandardization()(images), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(ImageStandardization()(torch.full_like(images, 7)), torch.zeros(2, 3, 6, 4))
