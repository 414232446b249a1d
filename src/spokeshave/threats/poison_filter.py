"""A filter for training data: batches, splits and whole loaders without the images that a detector suspects.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017: the loss of
every input is looked at before the network is trained on it, at a fraction of the cost of the step.
Departs from the paper: what becomes of a suspicious image is not known; here it is left out, and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spokeshave.data import Batches, Normalization, Split
from spokeshave.errors import DataError, InvalidArgument
from spokeshave.threats.poisoning_detection import Detector

_CHUNK = 5000
"""Images of a split that are scaled to floating point at once."""


@dataclass
class FilterReport:
    """What was seen and what was dropped.

    Attributes:
        seen: images looked at.
        dropped: of them.
        by_label: label -> dropped images that came with it.
        places: of the dropped images: positions in a split, or in the order in which a loader gave them.
    """

    seen: int = 0
    dropped: int = 0
    by_label: Counter[int] = field(default_factory=Counter)
    places: list[int] = field(default_factory=list)

    @property
    def dropped_share(self) -> float:
        """0..1; 0 where nothing was seen."""
        return self.dropped / self.seen if self.seen else 0.0


class PoisonFilter:
    """Leaves suspicious images out; draws nothing at random, and leaves the detector's model as it was.

    Args:
        detector: fitted.
        most_share: of a split or a whole pass that may be dropped, 0..1; more means that the detector does not fit the
            data (another normalisation, say) more often than that there is so much poison.

    Attributes:
        report: of all images looked at so far.

    Raises:
        InvalidArgument: for a detector without threshold, or a share out of its range.
    """

    def __init__(self, detector: Detector, most_share: float = 0.5) -> None:
        if detector.threshold is None:
            raise InvalidArgument(f"{type(detector).__name__} has no threshold yet: fit it first")
        if not 0 < most_share <= 1:
            raise InvalidArgument(f"most_share must be in 0..1, above 0, got {most_share}")
        self.detector, self.most_share, self.report = detector, most_share, FilterReport()

    def keep(self, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which images of a batch to train on; none is a possible answer.

        Args:
            images: as the detector's model is fed.
            labels: that they came with.

        Returns:
            On the device of the images.

        Raises:
            InvalidArgument: for a detector that compares the images of a whole set, or what the detector refuses.
        """
        if not self.detector.judges_alone:
            raise InvalidArgument(
                f"{type(self.detector).__name__} compares the images of a whole training set; filter the split or all "
                "tensors at once (split, batches, tensors), not batch by batch"
            )
        return self._keep(images, labels)

    def __call__(
        self, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "kept ..."], Int64[Tensor, " kept"]]:
        """A batch without its suspicious images, inside a training loop.

        Raises:
            DataError: where all are suspicious; a loop that may meet such batches asks `keep`, and goes on.
            InvalidArgument: as `keep`.
        """
        kept = self.keep(images, labels)
        if not bool(kept.any()):
            raise DataError(
                f"all {len(labels)} images of this batch are suspicious (labels {labels.unique().tolist()}); skip it "
                "where keep(images, labels) has none, or look at detector.scores"
            )
        return images[kept], labels[kept]

    def tensors(
        self, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "kept ..."], Int64[Tensor, " kept"]]:
        """A whole training set without its suspicious images.

        Raises:
            DataError: where more than `most_share` of them are.
            InvalidArgument: as the detector's `scores`.
        """
        kept = self._keep(images, labels)
        self._require_some(int((~kept).sum()), len(kept), "the images")
        return images[kept], labels[kept]

    def split(self, split: Split, normalize: Callable[[Tensor], Tensor] | None = None) -> Split:
        """A split without its suspicious images.

        Args:
            split: of grey levels.
            normalize: from grey levels to what the detector's model is fed; None scales to 0..1.

        Raises:
            DataError: where more than `most_share` of the images are suspicious.
            InvalidArgument: as the detector's `scores`.
        """
        scale = normalize or Normalization.scale_only(split.images.shape[1])
        images = torch.cat([scale(some) for some in split.images.split(_CHUNK)])
        kept = self._keep(images, split.labels)
        self._require_some(int((~kept).sum()), len(kept), "the split")
        return split.subset(kept.nonzero().flatten())

    def batches(self, batches: Batches) -> Batches:
        """The same batches of a split without its suspicious images, judged as they are evaluated: not augmented.

        Where the augmentation crops, their centres are judged.

        Raises:
            DataError: where more than `most_share` of the images are suspicious.
            InvalidArgument: as the detector's `scores`.
        """

        def fed(images: Tensor) -> Tensor:
            return batches.normalize(images if batches.augment is None else batches.augment.centre(images))

        return Batches(
            self.split(batches.split, fed),
            batches.batch_size, batches.seed, batches.normalize, batches.augment, batches.device, batches.drop_last,
            batches.channels_last, batches.shuffle, batches.rank, batches.world_size,
        )  # fmt: skip

    def loader(self, loader: Iterable[Any], images: int | str = 0, labels: int | str = 1) -> "FilteredLoader":
        """A loader that gives the batches of another without their suspicious images.

        Args:
            loader: a DataLoader or the like; its batches are tuples, lists, named tuples or mappings.
            images: place or key of the images in a batch, as the detector's model is fed.
            labels: of the labels.
        """
        return FilteredLoader(self, loader, images, labels)

    def _keep(self, images: Tensor, labels: Tensor) -> Tensor:
        suspicious = self.detector.suspicious(images, labels.long())
        places = suspicious.nonzero().flatten()
        self.report.places += (places + self.report.seen).tolist()
        self.report.by_label.update(labels.cpu()[places].tolist())
        self.report.seen += len(suspicious)
        self.report.dropped += len(places)
        return (~suspicious).to(images.device)

    def _require_some(self, dropped: int, seen: int, where: str) -> None:
        if dropped > self.most_share * seen or dropped == seen:
            raise DataError(
                f"{where}: {dropped} of {seen} images are suspicious to {type(self.detector).__name__} (threshold "
                f"{self.detector.threshold:.4g}), more than most_share={self.most_share:g} of them; are they fed as "
                "the clean images were that it was fitted to? Look at detector.scores, or raise most_share"
            )


class FilteredLoader:
    """Batches of a loader without suspicious images; batches of which nothing is left are passed over.

    Whatever in a batch has as many entries as there are images (tensors, lists) is cut with them. A pass of which more
    than `most_share` was dropped ends in a DataError.
    """

    def __init__(
        self, poison_filter: PoisonFilter, loader: Iterable[Any], images: int | str, labels: int | str
    ) -> None:
        self.poison_filter, self.inner, self._images, self._labels = poison_filter, loader, images, labels

    def __len__(self) -> int:
        """Most batches that a pass can have."""
        return len(self.inner)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[Any]:
        report = self.poison_filter.report
        seen, dropped = report.seen, report.dropped
        for batch in self.inner:
            kept = self.poison_filter.keep(self._part(batch, self._images), self._part(batch, self._labels))
            if bool(kept.any()):
                yield cut(batch, kept)
        if report.seen > seen:
            self.poison_filter._require_some(report.dropped - dropped, report.seen - seen, "this pass")

    def _part(self, batch: Any, place: int | str) -> Tensor:
        try:
            found = batch[place]
        except (KeyError, IndexError, TypeError) as error:
            has = list(batch) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
            raise InvalidArgument(f"a batch has no {place!r}: it is {has}; name where images and labels are") from error
        if not isinstance(found, Tensor):
            raise InvalidArgument(f"batch[{place!r}]: expected a tensor, got {type(found).__name__}")
        return found


def cut(batch: Any, kept: Bool[Tensor, " n"]) -> Any:
    """A batch of the same kind with some of its samples.

    Args:
        batch: a tensor, or tuples, lists, named tuples and mappings of such; a tensor or list of another length than
            `kept` goes through as it is.
        kept: which samples.

    Example:
        >>> cut({"x": torch.tensor([1, 2, 3]), "names": ["a", "b", "c"]}, torch.tensor([True, False, True]))
        {'x': tensor([1, 3]), 'names': ['a', 'c']}
    """
    if isinstance(batch, Tensor):
        return batch[kept.to(batch.device)] if batch.dim() and len(batch) == len(kept) else batch
    if isinstance(batch, Mapping):
        return {key: cut(value, kept) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        if len(batch) == len(kept) and not any(isinstance(value, Tensor) for value in batch):
            return type(batch)(value for value, keep in zip(batch, kept.tolist(), strict=True) if keep)
        parts = [cut(value, kept) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
