"""Digits: 1,797 handwritten digits that come with scikit-learn (UCI Optical Recognition of Handwritten Digits, 1998).

The 8x8 images of 17 grey levels are enlarged bilinearly to 28x28 and 0..255, so that networks for MNIST run on them as
they are. A fixed fifth of each class is the test split.
Departs from the source: UCI's split by writer is not in scikit-learn's copy (which is UCI's test part).
"""

from pathlib import Path

import torch

from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits

SIZE_PIXELS = 28
TEST_SHARE = 0.2
_TEST_SEED = 1998


def read_digits(folder: Path | None = None) -> Splits:
    """Give the embedded digits, 1x28x28.

    Args:
        folder: not used; the images are part of scikit-learn.

    Returns:
        1,438 training and 359 test images, the same on every machine.
    """
    from sklearn.datasets import load_digits  # imports scipy, a second that `import spokeshave` should not cost

    flat, numbers = load_digits(return_X_y=True)
    levels = torch.as_tensor(flat, dtype=torch.float64).view(-1, 1, 8, 8)  # 0..16
    large = torch.nn.functional.interpolate(levels, SIZE_PIXELS, mode="bilinear", align_corners=False)
    images = (large * (255 / 16)).round().clamp(0, 255).to(torch.uint8)
    whole = Split(images, torch.as_tensor(numbers, dtype=torch.int64))
    train, test = whole.hold_out(TEST_SHARE, seed=_TEST_SEED)
    return Splits("digits", train, test, tuple("0123456789"))


DIGITS = Source(DatasetName.DIGITS, "Digits (scikit-learn, embedded)", (), (), read_digits)
