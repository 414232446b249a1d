"""Batches: every image once an epoch, the same bytes for the same (seed, epoch, index), disjoint shares."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from spokeshave.data.augmentation import Augmentation
from spokeshave.data.batches import Batches
from spokeshave.data.normalization import Normalization
from spokeshave.data.splits import Split
from spokeshave.errors import InvalidArgument


def numbered(count: int = 50) -> Split:
    """Each image's label is its number, and its pixels start with it, so that a batch tells which images it holds."""
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
    return Split(images, torch.arange(count))


def seen(batches: Batches, epoch: int) -> list[int]:
    return [int(label) for _, labels in batches.epoch(epoch) for label in labels]


def test_every_image_exactly_once_an_epoch() -> None:
    batches = Batches(numbered(), 8, seed=3)
    assert len(batches) == 7
    assert sorted(seen(batches, 0)) == list(range(50))
    assert [len(batches.batch(0, i)[1]) for i in range(7)] == [8] * 6 + [2]


def test_images_belong_to_their_labels() -> None:
    batches = Batches(numbered(), 8, seed=3, normalize=Normalization.scale_only(3, factor=1.0))
    for images, labels in batches.epoch(4):
        assert torch.equal(images[:, 0, 0, 0].round().long(), labels)


def test_drop_last_leaves_the_incomplete_batch_out() -> None:
    batches = Batches(numbered(), 8, seed=3, drop_last=True)
    assert len(batches) == 6
    assert len(seen(batches, 0)) == 48


def test_order_changes_with_epoch_and_seed() -> None:
    first, other = Batches(numbered(), 8, seed=3), Batches(numbered(), 8, seed=4)
    assert seen(first, 0) != seen(first, 1)
    assert seen(first, 0) != seen(other, 0)
    assert seen(Batches(numbered(), 8, shuffle=False), 5) == list(range(50))


def test_a_batch_depends_on_seed_epoch_and_index_only() -> None:
    """Asked in another order, by another object, after other random draws: the same bytes."""
    augment = Augmentation(pad=2, flip=True)
    one = Batches(numbered(), 8, seed=9, augment=augment)
    wanted = {(e, i): one.batch(e, i) for e in range(3) for i in range(len(one))}
    torch.manual_seed(123)
    torch.rand(1000)
    other = Batches(numbered(), 8, seed=9, augment=augment)
    for key in reversed(list(wanted)):
        images, labels = other.batch(*key)
        assert torch.equal(images, wanted[key][0])
        assert torch.equal(labels, wanted[key][1])


def test_drawing_a_batch_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    Batches(numbered(), 8, seed=9, augment=Augmentation(2, True)).batch(0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_process_sees_the_same_bytes() -> None:
    program = (
        "import hashlib, torch; from spokeshave.data import Augmentation, Batches, Split\n"
        "split = Split((torch.arange(50 * 64) % 251).to(torch.uint8).view(50, 1, 8, 8), torch.arange(50))\n"
        "images, labels = Batches(split, 8, seed=2, augment=Augmentation(1, True)).batch(3, 4)\n"
        "digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()"
    )
    scope: dict[str, str] = {}
    exec(program, scope)
    there = subprocess.run(
        [sys.executable, "-c", program + "\nprint(digest)"], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == scope["digest"]


def test_augmented_pixels_are_those_of_the_augmentation() -> None:
    """Each augmented image is a crop of the padded original, mirrored or not: found by trying all of them."""
    split = numbered(20)
    raw = Normalization.scale_only(3, factor=1.0)
    images, labels = Batches(split, 20, seed=1, normalize=raw, augment=Augmentation(pad=1, flip=True)).batch(0, 0)
    padded = np.pad(split.images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for image, label in zip(images.round().byte().numpy(), labels.tolist(), strict=True):
        crops = [padded[label][:, t : t + 8, s : s + 8] for t in range(3) for s in range(3)]
        assert any(np.array_equal(image, c) or np.array_equal(image, c[:, :, ::-1]) for c in crops)


def test_augmentation_differs_by_seed_epoch_index_and_rank() -> None:
    """Sixty-four copies of one image: only the draw of the augmentation can tell two batches apart."""
    image = torch.randint(0, 256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    split = Split(image.expand(64, 1, 8, 8).clone(), torch.zeros(64, dtype=torch.int64))
    augment = Augmentation(pad=3, flip=True)
    one, other = (Batches(split, 8, seed=seed, augment=augment) for seed in (1, 2))
    ranks = [Batches(split, 8, seed=1, augment=augment, rank=rank, world_size=2) for rank in range(2)]
    drawn = [one.batch(0, 0), one.batch(0, 1), one.batch(1, 0), other.batch(0, 0), ranks[1].batch(0, 0)]
    assert len({images.numpy().tobytes() for images, _ in drawn}) == 5
    assert torch.equal(ranks[0].batch(0, 0)[0], one.batch(0, 0)[0])


def test_iterating_is_in_order_whole_and_not_augmented() -> None:
    split = numbered()
    raw = Normalization.scale_only(3, factor=1.0)
    batches = Batches(split, 8, seed=1, normalize=raw, augment=Augmentation(3, True), drop_last=True)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == list(range(50))
    assert torch.equal(images.round().byte(), split.images)


def test_processes_have_disjoint_shares_of_equal_size() -> None:
    split = numbered()
    shares = [seen(Batches(split, 4, seed=5, rank=rank, world_size=3), 0) for rank in range(3)]
    assert [len(share) for share in shares] == [16, 16, 16]
    assert len(set().union(*shares)) == 48


def test_the_processes_batches_make_one_large_batch() -> None:
    split = numbered(48)
    whole = Batches(split, 12, seed=5)
    parts = [Batches(split, 4, seed=5, rank=rank, world_size=3) for rank in range(3)]
    for index in range(len(whole)):
        together = sorted(int(y) for part in parts for y in part.batch(2, index)[1])
        assert together == sorted(whole.batch(2, index)[1].tolist())


def test_processes_cover_the_split_in_evaluation() -> None:
    shares = [[int(y) for _, ys in Batches(numbered(), 4, rank=r, world_size=3) for y in ys] for r in range(3)]
    assert sorted(label for share in shares for label in share) == list(range(50))


def test_channels_last_changes_the_layout_not_the_values() -> None:
    plain = Batches(numbered(), 8, seed=2, augment=Augmentation(1, True)).batch(0, 0)[0]
    other = Batches(numbered(), 8, seed=2, augment=Augmentation(1, True), channels_last=True).batch(0, 0)[0]
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, other)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="batch_size must be 1 or more, got 0"):
        Batches(numbered(), 0)
    with pytest.raises(InvalidArgument, match="rank 2 of world_size 2"):
        Batches(numbered(), 4, rank=2, world_size=2)
    with pytest.raises(InvalidArgument, match="no batch of 64 with drop_last"):
        Batches(numbered(), 64, drop_last=True)
    with pytest.raises(InvalidArgument, match=r"0\.\.6, got 7"):
        Batches(numbered(), 8).batch(0, 7)


def test_evaluation_is_cropped_to_the_centre_and_never_drawn() -> None:
    split = numbered()
    augment = Augmentation(flip=True, crop=4, contrast=(0.5, 1.5))
    images = torch.cat([images for images, _ in Batches(split, 8, augment=augment)])
    assert torch.equal(images, split.images[:, :, 2:6, 2:6].float().mul(1 / 255))
    assert Batches(split, 8, augment=augment).batch(0, 0)[0].shape == (8, 3, 4, 4)
