"""The embedded digits against scikit-learn's own array and SciPy's interpolation."""

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator
from sklearn.datasets import load_digits

from spokeshave.data import load
from spokeshave.data.digits import read_digits


def test_counts_classes_and_form() -> None:
    splits = load("digits")
    assert (len(splits.train), len(splits.test)) == (1438, 359)
    assert splits.train.image_shape == (1, 28, 28)
    assert splits.classes == tuple("0123456789")
    whole = torch.bincount(torch.cat([splits.train.labels, splits.test.labels])).tolist()
    assert whole == np.bincount(load_digits(return_X_y=True)[1]).tolist()
    share = torch.bincount(splits.test.labels) / torch.tensor(whole)
    assert float(share.min()) > 0.19
    assert float(share.max()) < 0.21


def test_images_are_the_originals_enlarged_bilinearly() -> None:
    """SciPy's linear interpolation at pixel centres, edges held, stands for the enlargement."""
    original = load_digits(return_X_y=True)[0].reshape(-1, 8, 8)
    centres = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1)
    splits = read_digits()
    enlarged = {split.images[i].numpy().tobytes() for split in (splits.train, splits.test) for i in range(len(split))}
    for image in original[:20]:
        exact = RegularGridInterpolator((np.arange(8), np.arange(8)), image * (255 / 16))(grid)
        near = [np.frombuffer(e, np.uint8).reshape(28, 28) for e in enlarged]
        assert min(np.abs(e - exact).max() for e in near) <= 0.51


def test_the_cut_is_the_same_each_time_and_shares_no_image() -> None:
    first, second = read_digits(), read_digits()
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.train.labels, second.train.labels)
    assert (len(first.train) + len(first.test)) == 1797
