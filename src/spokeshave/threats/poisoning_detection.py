"""Poison is found by its loss: a training image on which a clean network is wrong or unsure is suspicious.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017, countermeasure:

    s(x, y) = -log p_theta(y | x),        suspicious where s > tau

with theta the network before it sees the image, and tau such that 1 % of clean images are suspicious too.
Departs from the paper: only its abstract could be read ("monitoring per-input losses with simple thresholds"); that tau
is a quantile of clean images' losses, and the other detectors with this interface, are chosen here.
"""

import copy
from abc import ABC, abstractmethod
from enum import Enum

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.detection_scores import Detection, area_under_roc, found_share, threshold_for
from spokeshave.threats.labelled_images import device_of, require_classes, require_labelled
from spokeshave.timing import evaluating

CHUNK = 2000
"""Images that a network sees at once."""


class Detector(ABC):
    """What tells poison from clean images; the network is run in eval mode, and left as it was.

    Attributes:
        threshold: above which an image is suspicious; None before `fit`.
        judges_alone: whether the score of an image is the same in whatever company; else all images of a training set
            must be given at once.
    """

    judges_alone = True

    def __init__(self) -> None:
        self.threshold: float | None = None
        self.false_positive_share = 0.01
        self._model: nn.Module | None = None
        self._clean: tuple[Tensor, Tensor] | None = None

    def fit(
        self,
        model: nn.Module,
        clean_images: Float[Tensor, "n ..."],
        labels: Int64[Tensor, " n"],
        false_positive_share: float = 0.01,
    ) -> "Detector":
        """Learn what clean images look like, and choose the threshold.

        Args:
            model: gives class scores; trained on data that is trusted.
            clean_images: as the model is fed, trusted, and best not those that it was trained on: their scores are
                lower than those of images it has not seen. A thousand make a threshold.
            labels: theirs.
            false_positive_share: of clean images that may be called suspicious, 0..1.

        Returns:
            Itself.

        Raises:
            InvalidArgument: for images and labels that do not belong together or do not fit the model.
            UnsupportedLayer: where the detector needs features and the model has no linear layer.
        """
        require_labelled(clean_images, labels, "clean images")
        if not 0 <= false_positive_share < 1:
            raise InvalidArgument(f"false_positive_share must be in 0..1, below 1, got {false_positive_share}")
        self.false_positive_share = false_positive_share
        self._learn(model, clean_images, labels)
        self.calibrate()
        return self

    @property
    def limit(self) -> float:
        """The threshold.

        Raises:
            InvalidArgument: before `fit`.
        """
        self._fitted()
        assert self.threshold is not None
        return self.threshold

    def calibrate(self) -> float:
        """Choose the threshold anew, such as for weights that have moved since.

        Returns:
            The threshold.

        Raises:
            InvalidArgument: before `fit`.
        """
        self.threshold = threshold_for(self.clean_scores(), self.false_positive_share)
        return self.threshold

    def clean_scores(self) -> Float[Tensor, " n"]:
        """Scores of the clean images that it was fitted to, each as if it had not been among them.

        Raises:
            InvalidArgument: before `fit`.
        """
        return self._clean_scores(*self._fitted()[1])

    def scores(self, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How suspicious each image is, with the label it came with.

        Args:
            images: as the model is fed.
            labels: to be doubted.

        Returns:
            The higher, the more suspicious; on the CPU.

        Raises:
            InvalidArgument: before `fit`, or for images and labels that do not belong together or fit the model.
        """
        self._fitted()
        require_labelled(images, labels, "images to be judged")
        return self._scores(images, labels)

    def suspicious(self, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether each image scores above the threshold.

        Raises:
            InvalidArgument: as `scores`.
        """
        scores = self.scores(images, labels)
        return scores > self.limit

    def judge(
        self,
        clean_images: Float[Tensor, "n ..."],
        clean_labels: Int64[Tensor, " n"],
        poisons: Float[Tensor, "m ..."],
        poison_labels: Int64[Tensor, " m"],
    ) -> Detection:
        """How well it tells these poisons from these clean images, all mixed; neither may have been fitted to.

        Raises:
            InvalidArgument: as `scores`.
        """
        require_labelled(clean_images, clean_labels, "clean images")
        require_labelled(poisons, poison_labels, "poisons")
        scores = self.scores(torch.cat([clean_images, poisons]), torch.cat([clean_labels, poison_labels]))
        clean, poison = scores[: len(clean_labels)], scores[len(clean_labels) :]
        return Detection(
            area_under_roc(clean, poison),
            found_share(clean, poison, self.false_positive_share),
            self.false_positive_share,
            float((poison > self.limit).double().mean()),
            float((clean > self.limit).double().mean()),
        )

    @abstractmethod
    def _scores(self, images: Tensor, labels: Tensor) -> Tensor: ...

    def _learn(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Keep what is needed of them, and the model as it is now."""
        self._model, self._clean = copy.deepcopy(model), (images, labels)

    def _clean_scores(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of the images that were learnt from, as if they had not been."""
        return self._scores(images, labels)

    def _fitted(self) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
        if self._model is None or self._clean is None:
            raise InvalidArgument(f"{type(self).__name__} has no threshold yet: call fit(model, clean_images, labels)")
        return self._model, self._clean


class Weights(Enum):
    """Whose losses are looked at."""

    AT_FIT = "at-fit"
    """The network's as it was when the detector was fitted, whatever becomes of it: it stays clean."""
    CURRENT = "current"
    """The network's as it is by now: losses come free with its training, but what it swallowed it no longer sees."""


class LossDetector(Detector):
    """The paper's countermeasure: the cross entropy of each image under a clean network.

    Args:
        weights: whose losses are looked at.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
        >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))  # log p(0 | x) / p(1 | x) = 2 x
        >>> right, labels = torch.full((100, 1, 1, 1), 2.0), torch.zeros(100, dtype=torch.int64)
        >>> detector = LossDetector().fit(model, right, labels)
        >>> detector.suspicious(right[:2], torch.tensor([0, 1])).tolist()  # losses 0.018 and 4.018
        [False, True]
    """

    def __init__(self, weights: Weights = Weights.AT_FIT) -> None:
        super().__init__()
        self.weights = weights

    def _learn(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        super()._learn(model, images, labels)
        if self.weights is Weights.CURRENT:
            self._model = model

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        return losses(self._fitted()[0], images, labels)


def losses(model: nn.Module, images: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Cross entropy of each image, in nats, in eval mode; on the CPU.

    Args:
        model: gives class scores; left as it was.
        images: as the model is fed.
        labels: below the number of classes.

    Raises:
        InvalidArgument: where the scores are not (n, classes) and finite, or there are too few classes.
    """
    device, found = device_of(model), []
    with torch.no_grad(), evaluating(model):
        for some, given in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
            scores = model(some.to(device))
            if scores.dim() != 2 or len(scores) != len(some) or not bool(scores.isfinite().all()):
                raise InvalidArgument(
                    f"{type(model).__name__}: expected finite class scores of shape ({len(some)}, classes), got "
                    f"{tuple(scores.shape)} with {int((~scores.isfinite()).sum())} that are not finite"
                )
            require_classes(given, scores, "images to be judged")
            found.append(functional.cross_entropy(scores.float(), given.to(device), reduction="none").cpu())
    return torch.cat(found)
