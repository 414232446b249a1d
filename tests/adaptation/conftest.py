"""Two small domains: the embedded digits, and the same with ink and ground exchanged in a corner of brightness."""

import pytest
import torch

from spokeshave.data import Split, Splits


@pytest.fixture(scope="session")
def darker(splits: Splits) -> Split:
    """The test digits of half contrast on a grey ground: another domain, the same classes."""
    images = (splits.test.images.float() * 0.4 + 90).to(torch.uint8)
    return Split(images, splits.test.labels)
