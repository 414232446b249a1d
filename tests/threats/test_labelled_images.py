"""What is no set of labelled images is refused by name."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.labelled_images import device_of, require_classes, require_labelled

IMAGES, LABELS = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    "images, labels, said",
    [
        (IMAGES.to(torch.uint8), LABELS, "expected floating-point finite values"),
        (torch.zeros(3), LABELS, "first dimension images"),
        (IMAGES, LABELS[:2], "expected 3 class numbers"),
        (IMAGES, LABELS.float(), "expected 3 class numbers"),
        (IMAGES, LABELS[:, None], "expected 3 class numbers"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
        (IMAGES, LABELS - 1, "at least 0, got -1..1"),
        (torch.stack([IMAGES[0], IMAGES[0] + torch.inf, IMAGES[0] * torch.nan]), LABELS, "2 of 3 .* first at 1"),
    ],
)
def test_each_fault_is_named(images, labels, said):
    with pytest.raises(InvalidArgument, match=f"^here: .*{said}"):
        require_labelled(images, labels, "here")


def test_any_finite_range_is_welcome_and_classes_are_counted():
    require_labelled(IMAGES - 200, LABELS, "here")
    require_classes(LABELS, torch.zeros(3, 3), "here")
    with pytest.raises(InvalidArgument, match="below the network's 2 classes, got 2"):
        require_classes(LABELS, torch.zeros(3, 2), "here")
    assert device_of(nn.Flatten()).type == "cpu" and device_of(nn.Linear(1, 1).to("meta")).type == "meta"
