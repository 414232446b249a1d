"""The filter on batches, loaders, splits and batches of a split: what is dropped, counted and refused."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.data import Augmentation, Batches, Split
from spokeshave.errors import DataError, InvalidArgument
from spokeshave.threats.poison_filter import PoisonFilter, cut
from spokeshave.threats.poisoning_detection import LossDetector
from spokeshave.threats.spectral_signatures import SpectralDetector

POISONED = [3, 4, 17, 40]


def poisoned(count: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = two_blobs(count, seed=1)
    labels = labels.clone()
    labels[POISONED] = 1 - labels[POISONED]
    return images, labels


@pytest.fixture
def poison_filter() -> PoisonFilter:
    # The loosest threshold that lets no clean image of these go.
    return PoisonFilter(LossDetector().fit(judge_of_blobs(), *two_blobs(400), false_positive_share=0.0))


def test_a_loader_gives_its_batches_without_poison_and_counts_it(poison_filter):
    images, labels = poisoned()
    loader = poison_filter.loader(DataLoader(TensorDataset(images, labels, torch.arange(48)), batch_size=10))
    state, weights = torch.get_rng_state(), copy.deepcopy(poison_filter.detector._model.state_dict())
    kept = list(loader)
    assert torch.cat([batch[2] for batch in kept]).tolist() == [i for i in range(48) if i not in POISONED]
    assert all(isinstance(batch, list) for batch in kept) and len(loader) == 5
    report = poison_filter.report
    assert report.seen == 48 and report.dropped == 4 and report.places == POISONED
    assert report.by_label == {0: 2, 1: 2} and report.dropped_share == pytest.approx(4 / 48)
    assert len(list(loader)) == 5 and report.dropped == 8, "a second pass counts on"
    assert not torch.equal(state, torch.get_rng_state()), "a DataLoader draws a seed of its own"
    after = poison_filter.detector._model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_the_filter_itself_draws_nothing(poison_filter):
    state = torch.get_rng_state()
    list(poison_filter.loader([poisoned()]))
    poison_filter(*poisoned())
    assert torch.equal(state, torch.get_rng_state())


def test_dictionaries_and_named_tuples_keep_their_form(poison_filter):
    class Sample(NamedTuple):
        pixels: torch.Tensor
        target: torch.Tensor
        epoch: int

    images, labels = poisoned()
    names = [str(i) for i in range(48)]
    mapping = {"pixels": images, "target": labels, "name": names, "mean": torch.zeros(3)}
    (found,) = poison_filter.loader([mapping], images="pixels", labels="target")
    assert found["name"] == [name for i, name in enumerate(names) if i not in POISONED]
    assert len(found["pixels"]) == len(found["target"]) == 44 and len(found["mean"]) == 3
    (sample,) = poison_filter.loader([Sample(images, labels, 7)])
    assert isinstance(sample, Sample) and len(sample.pixels) == 44 and sample.epoch == 7


def test_a_batch_of_two_tensors_with_two_images_is_cut_not_taken_for_a_list():
    pair = (torch.zeros(2, 3), torch.tensor([0, 1]))
    images, labels = cut(pair, torch.tensor([False, True]))
    assert images.shape == (1, 3) and labels.tolist() == [1]


def test_a_training_loop_sees_what_is_left(poison_filter):
    images, labels = poisoned()
    kept_images, kept_labels = poison_filter(images, labels)
    assert len(kept_images) == 44 and torch.equal(kept_labels, two_blobs(48)[1][poison_filter.keep(images, labels)])
    with pytest.raises(DataError, match="all 4 images of this batch are suspicious"):
        poison_filter(images[POISONED], labels[POISONED])
    assert not poison_filter.keep(images[POISONED], labels[POISONED]).any()


def test_splits_and_their_batches_lose_their_poison(poison_filter):
    images, labels = poisoned()
    split = Split((images.clamp(0, 1) * 255).round().to(torch.uint8), labels)
    clean = poison_filter.split(split)
    rest = [i for i in range(48) if i not in POISONED]
    assert torch.equal(clean.images, split.images[rest]) and torch.equal(clean.labels, labels[rest])
    batches = poison_filter.batches(Batches(split, 8, seed=5, drop_last=True))
    assert len(batches.split) == 44 and len(batches) == 5 and batches.seed == 5 and batches.drop_last
    assert poison_filter.report.places == [*POISONED, *(48 + place for place in POISONED)]
    assert len(poison_filter.tensors(images, labels)[1]) == 44


def test_batches_that_are_cropped_are_judged_by_their_centres(poison_filter):
    images, labels = poisoned()
    grey = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    framed = torch.nn.functional.pad(grey, (1, 1, 1, 1), value=255)
    batches = Batches(Split(framed, labels), 8, augment=Augmentation(crop=2, flip=True))
    clean = poison_filter.batches(batches)
    assert poison_filter.report.places == POISONED and clean.split.images.shape == (44, 1, 4, 4)
    assert next(iter(clean))[0].shape == (8, 1, 2, 2)


def test_a_detector_that_suspects_too_much_is_refused(poison_filter):
    images, labels = two_blobs(48, seed=1)
    with pytest.raises(DataError, match="48 of 48 images are suspicious to LossDetector .* fed as the clean images"):
        poison_filter.tensors(images, 1 - labels)
    with pytest.raises(DataError, match="this pass: 48 of 48"):
        list(poison_filter.loader([(images, 1 - labels)]))
    with pytest.raises(DataError, match="48 of 48"):
        PoisonFilter(poison_filter.detector, most_share=1.0).tensors(images, 1 - labels)
    mixed = torch.where(torch.arange(48) < 30, 1 - labels, labels)
    with pytest.raises(DataError, match="30 of 48"):
        poison_filter.tensors(images, mixed)
    assert len(PoisonFilter(poison_filter.detector, most_share=0.9).tensors(images, mixed)[1]) == 18


def test_what_cannot_be_filtered_is_refused(poison_filter):
    with pytest.raises(InvalidArgument, match="fit it first"):
        PoisonFilter(LossDetector())
    with pytest.raises(InvalidArgument, match="most_share"):
        PoisonFilter(poison_filter.detector, most_share=0.0)
    together = PoisonFilter(SpectralDetector().fit(judge_of_blobs(), *two_blobs(100)))
    with pytest.raises(InvalidArgument, match="compares the images of a whole training set"):
        together(*poisoned())
    assert len(together.tensors(*two_blobs(100))[1]) >= 98
    for loader, places, said in (
        ([{"x": torch.zeros(1)}], ("image", "label"), r"no 'image': it is \['x'\]"),
        ([poisoned()], (0, 5), "no 5: it is a tuple"),
        ([["a", "b"]], (0, 1), "expected a tensor, got str"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            list(poison_filter.loader(loader, *places))
