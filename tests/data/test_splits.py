"""Splits: their form is checked, and cuts are stratified, disjoint, complete and reproducible."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spokeshave.data.splits import Split, Splits, stratified_sample
from spokeshave.errors import DataError, InvalidArgument


def split_of(labels: list[int]) -> Split:
    count = len(labels)
    images = (torch.arange(count) % 256).to(torch.uint8).view(count, 1, 1, 1).expand(count, 1, 2, 3).clone()
    return Split(images, torch.tensor(labels))


def test_a_split_keeps_length_and_image_shape() -> None:
    split = split_of([0, 1, 2])
    assert len(split) == 3
    assert split.image_shape == (1, 2, 3)


def test_subset_takes_the_named_images_in_order() -> None:
    chosen = split_of([5, 6, 7, 8]).subset([3, 1])
    assert chosen.labels.tolist() == [8, 6]
    assert chosen.images[:, 0, 0, 0].tolist() == [3, 1]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), "2 and 1"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([-1]), "-1"),
        (torch.zeros(1, 1, 2, 2), torch.tensor([0]), "uint8 .* got torch.float32"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), torch.tensor([0]), r"\(1, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0], dtype=torch.int32), "int64 .* got torch.int32"),
    ],
)
def test_a_malformed_split_is_refused(images: torch.Tensor, labels: torch.Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Split(images, labels)


def test_a_label_without_a_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"train split must be 0\.\.1 .* got 2"):
        Splits("toy", split_of([0, 2]), split_of([0, 1]), ("a", "b"))


def test_splits_of_two_image_shapes_are_refused() -> None:
    other = Split(torch.zeros(1, 3, 2, 3, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(DataError, match="one shape"):
        Splits("toy", split_of([0, 1]), other, ("a", "b"))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        Splits("toy", split_of([0]), Split(torch.zeros(0, 1, 2, 3, dtype=torch.uint8), torch.zeros(0).long()), ("a",))


def test_hold_out_cuts_every_class_by_its_share() -> None:
    splits = Splits("toy", split_of([0] * 50 + [1] * 30 + [2] * 20), split_of([0]), ("a", "b", "c"))
    rest, held = splits.hold_out(0.2, seed=3)
    assert torch.bincount(held.labels).tolist() == [10, 6, 4]
    assert torch.bincount(rest.labels).tolist() == [40, 24, 16]


def test_hold_out_is_a_partition_and_depends_on_the_seed_only() -> None:
    split = split_of([i % 7 for i in range(200)])
    rest, held = split.hold_out(33, seed=1)
    marks = torch.cat([rest.images[:, 0, 0, 0], held.images[:, 0, 0, 0]]).sort().values
    assert marks.tolist() == list(range(200))
    again = split.hold_out(33, seed=1)[1]
    other = split.hold_out(33, seed=2)[1]
    assert torch.equal(held.images, again.images)
    assert not torch.equal(held.images, other.images)


@pytest.mark.parametrize("wrong", [0, 10, -1, 0.0, 1.0, 0.01])
def test_hold_out_of_nothing_or_everything_is_refused(wrong: int | float) -> None:
    with pytest.raises(InvalidArgument, match=r"1\.\.9 of 10"):
        split_of([0, 1] * 5).hold_out(wrong, seed=0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.data())
def test_a_stratified_sample_is_exact_in_number_and_fair_to_one_image(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels)))
    drawn = stratified_sample(torch.tensor(labels), count, seed=0)
    assert len(set(drawn.tolist())) == count
    for category in set(labels):
        share = labels.count(category) * count / len(labels)
        assert abs(sum(labels[i] == category for i in drawn.tolist()) - share) < 1
