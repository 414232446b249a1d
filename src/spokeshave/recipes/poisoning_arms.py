"""The arms of recipe `poisoning`: ways to make one poison, each judged by one step of the victim on it.

The clean victim is the reference; an error is the mean over all poisons, each alone. Base images are of the validation
split, unseen by victim and generator; the attacker knows the victim and its training images, the defender the rest of
the validation split; who hides knows the detector as well, with its images. The detectors' thresholds leave one clean
validation image in a hundred suspicious.
"""

import copy
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from spokeshave.arms_output import Scored
from spokeshave.data import Split
from spokeshave.equal_budget import Course
from spokeshave.evaluation import Evaluation
from spokeshave.kept_results import kept_or_made, kept_or_made_tensors
from spokeshave.ledger import describe_versions
from spokeshave.processes import is_first
from spokeshave.recipes.poisoning_rows import RowPlan
from spokeshave.tensor_digest import digest
from spokeshave.threats.activation_clustering import ClusteringDetector
from spokeshave.threats.image_autoencoder import pretrain
from spokeshave.threats.joint_detection import AnyDetector
from spokeshave.threats.neighbour_detection import NeighbourDetector
from spokeshave.threats.own_label_distance import DistanceDetector
from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.poison_generator import PoisonGenerator
from spokeshave.threats.poison_gradient import Ascent, PoisonMethod
from spokeshave.threats.poisoning import damage, poison
from spokeshave.threats.poisoning_detection import Detector, LossDetector, losses
from spokeshave.threats.spectral_signatures import SpectralDetector
from spokeshave.timing import median_and_spread

CLEAN, CLEAN_LABEL = "clean", "the victim without poison"
_VALIDATED = 500
"""Validation images that networks are tried on, poisoned or not."""
Measured = TypeVar("Measured")
ImagesAndLabels = tuple[Tensor, Tensor]
Way = Callable[[Tensor, Tensor], ImagesAndLabels]
"""From base images and their labels to poisons and theirs."""


class ArmName(Enum):
    """Ways to make a poison."""

    FLIP = "flip"
    DIFFERENCES = "differences"
    DIRECT = "direct"
    DIRECT_LONG = "direct-long"
    SURROGATE = "surrogate"
    GENERATOR = "generator"
    TRUE_LABEL = "true-label"


LABELS = {
    ArmName.FLIP: "a wrong label, the image as it is",
    ArmName.DIFFERENCES: "the paper's direct method, by finite differences",
    ArmName.DIRECT: "the same by the exact gradient",
    ArmName.DIRECT_LONG: "the direct method with more rounds and normal images",
    ArmName.SURROGATE: "the paper's generative method, trained on each image alone",
    ArmName.GENERATOR: "one generator for all images, trained by the exact gradient",
    ArmName.TRUE_LABEL: "the direct method with the image's own label",
}


_TURNS, _LEAST_S = 3, 0.05
"""The ways are timed in turns, so often, and each for at least so long."""
_IN_TURNS = (ArmName.DIFFERENCES, ArmName.DIRECT, ArmName.SURROGATE, ArmName.GENERATOR)


class DetectorName(Enum):
    """Who looks for poison."""

    LOSS = "loss"
    DISTANCE = "distance"
    BOTH = "loss or distance"
    NEIGHBOURS = "neighbours"
    SPECTRAL = "spectral signatures"
    CLUSTERING = "activation clustering"


@dataclass(frozen=True, eq=False)
class Made:
    """Poisons of one arm, what they did, and what they cost.

    Attributes:
        images: the poisons.
        labels: that they carry.
        accuracies: of the victim after each of them.
        seconds: that making one took, perhaps beside other seeds.
    """

    images: Tensor
    labels: Tensor
    accuracies: Tensor
    seconds: float = 0.0


class Walk:
    """One seed of a row.

    Args:
        plan: of the row.
        course: data and budget of the victim.
        seed: of its first weights and of whatever is drawn.
    """

    def __init__(self, plan: RowPlan, course: Course, seed: int) -> None:
        self.plan, self.course, self.seed = plan, course, seed
        self.made: dict[ArmName, Made] = {}
        self._folder = course.run_dir / f"seed-{seed}"

    @cached_property
    def _trained(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        return self.course.exact(self.seed)

    @property
    def victim(self) -> nn.Module:
        """At its trained weights."""
        return self._trained[0].eval()

    @cached_property
    def other(self) -> nn.Module:
        """A network of another architecture, trained on the same images."""
        budget = self.plan.start(other=True).budget(self.course.splits)
        budget = replace(budget, settings=replace(budget.settings, steps=self.course.budget.settings.steps))
        course = Course(budget, self.course.splits, self.course.run_dir, self.course.resume, self.course.device)
        return course.exact(self.seed)[0].eval()

    @cached_property
    def bases(self) -> ImagesAndLabels:
        """What poisons are made of."""
        return self.fed(self.course.validation, slice(0, self.plan.poisons))

    @cached_property
    def defended(self) -> ImagesAndLabels:
        """Clean images that the defender trusts."""
        return self.fed(self.course.validation, slice(self.plan.poisons, None))

    @cached_property
    def tried(self) -> ImagesAndLabels:
        """Of the validation split, that networks are tried on."""
        return _first(self.defended, _VALIDATED)

    @cached_property
    def known(self) -> ImagesAndLabels:
        """Training images that the attacker knows."""
        return self.fed(self.course.training, slice(0, max(self.plan.training, self.plan.many)))

    @cached_property
    def tests(self) -> ImagesAndLabels:
        """Of the test split."""
        return self.fed(self.course.splits.test, slice(0, self.plan.images))

    def fed(self, split: Split, chosen: slice) -> ImagesAndLabels:
        """Images of a split as the victim is fed."""
        images = self.course.budget.normalize(split.images[chosen])
        return images.to(self.course.device), split.labels[chosen].to(self.course.device)

    @cached_property
    def joint_detector(self) -> AnyDetector:
        """Of loss and distance together."""
        detector = AnyDetector((LossDetector(), DistanceDetector(self.plan.neighbours)))
        detector.fit(self.victim, *self.defended)
        return detector

    @cached_property
    def detectors(self) -> dict[DetectorName, Detector]:
        """Fitted to the clean victim."""
        k = self.plan.neighbours
        kinds: dict[DetectorName, Detector] = {
            DetectorName.LOSS: LossDetector(),
            DetectorName.DISTANCE: DistanceDetector(k),
            DetectorName.NEIGHBOURS: NeighbourDetector(10 * k),
            DetectorName.SPECTRAL: SpectralDetector(),
            DetectorName.CLUSTERING: ClusteringDetector(),
        }
        fitted = {name: detector.fit(self.victim, *self.defended) for name, detector in kinds.items()}
        return {name: {DetectorName.BOTH: self.joint_detector, **fitted}[name] for name in DetectorName}

    def arms(self, names: Sequence[ArmName]) -> dict[str, Scored]:
        """The clean victim, then these arms, each timed against finite differences where they are among them."""
        held_out, test = self._unpoisoned(self.tried), self._unpoisoned(self.tests)
        scored = {CLEAN: Scored(CLEAN_LABEL, held_out, test, {}, {"victim": self._trained[1]})}
        self.make(names)
        turns = [name for name in _IN_TURNS if name in names]
        seconds = {name.value: [made.seconds] for name, made in self.made.items()}
        seconds |= self.found(f"seconds of {_words(turns)}", lambda: self._seconds(turns))
        for name in names:
            scored[name.value] = self._scored(name, seconds)
        return scored

    def make(self, names: Sequence[ArmName]) -> None:
        """The poisons of these arms, or those that an earlier run has made."""
        self.made = {name: self._kept_or_made(name) for name in names}

    @cached_property
    def clean(self) -> float:
        """Accuracy of the victim on the images of the test split."""
        return self._unpoisoned(self.tests).accuracy

    def found(
        self, what: str, measure: Callable[[], dict[str, Measured]], given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Measured]:
        """Numbers by their names, measured once and read again by a run that is resumed.

        Args:
            what: they are, in words.
            measure: them.
            given: tensors that they depend on beside the row, the seed and the victim.
        """
        path = self._folder / "found" / f"{re.sub('[^a-z0-9.+]+', '-', what.lower())}.json"
        key = {**self._key, "what": what, "given": digest(given or {})}
        return kept_or_made(path, key, measure, dict, dict, self.course.resume)

    def filtered(self, made: Made, detector: Detector) -> float:
        """Mean accuracy where suspicious poisons are left out, and the victim stays as it was."""
        dropped = detector.suspicious(made.images, made.labels).to(made.accuracies.device)
        return float(torch.where(dropped, self.clean, made.accuracies).mean())

    def say(self, text: str) -> None:
        """How far it is, for who waits."""
        if is_first():
            Console(highlight=False).print(f"seed {self.seed}, {text}", markup=False, soft_wrap=True)

    def _unpoisoned(self, given: ImagesAndLabels) -> Evaluation:
        """The victim on the images that the poisoned networks are scored on."""
        before = damage(self.victim, *_first(self.bases, 1), given, self.plan.budget).before
        return Evaluation(before, float(losses(self.victim, *given).mean()), len(given[1]))

    @cached_property
    def _key(self) -> dict[str, Any]:
        """What everything that is measured depends on, beside what itself is called."""
        splits = self.course.splits
        data = {"images": splits.train.images, "labels": splits.train.labels}
        data |= {"test_images": splits.test.images, "test_labels": splits.test.labels}
        # These choose what is measured; what does not depend on them need not be measured again.
        plan = replace(self.plan, lambdas=(), steps=(), shares=())
        key = {"plan": repr(plan), "seed": self.seed, "victim": digest(self.victim.state_dict()), "data": digest(data)}
        return {**key, "versions": describe_versions()}

    def _kept_or_made(self, name: ArmName) -> Made:
        bases = self._bases_of(name)

        def make() -> tuple[dict[str, Tensor], dict[str, float]]:
            way, started = self._way(name), time.perf_counter()
            images, labels = way(*bases)
            seconds = (time.perf_counter() - started) / len(labels)
            accuracies = damage(self.victim, images, labels, self.tests, self.plan.budget).accuracies
            self.say(f"{name.value}: accuracy {float(accuracies.mean()):.2%}, {seconds:.2g} s a poison")
            made = {"images": images, "labels": labels, "accuracies": accuracies}
            return {**made, "base_images": bases[0], "base_labels": bases[1]}, {"seconds": seconds}

        path = self._folder / "poisons" / f"{name.value}.safetensors"
        tensors, numbers = kept_or_made_tensors(path, {**self._key, "arm": name.value}, make, self.course.resume)
        images, labels, accuracies = (tensors[key].to(self.course.device) for key in ("images", "labels", "accuracies"))
        return Made(images, labels, accuracies, numbers["seconds"])

    def _scored(self, name: ArmName, seconds: dict[str, list[float]]) -> Scored:
        made, numbers = self.made[name], {}
        for detector in (DetectorName.LOSS, DetectorName.BOTH):
            found = self.detectors[detector].judge(*self.tests, made.images, made.labels)
            key = detector.name.lower()
            numbers |= {f"{key}_area": found.area, f"{key}_found_share": found.found_share}
            numbers[f"{key}_filtered_error_share"] = 1 - self.filtered(made, self.detectors[detector])
        if name is not ArmName.FLIP:
            own, slowest = seconds[name.value], seconds.get(ArmName.DIFFERENCES.value)
            numbers["seconds"], numbers["seconds_spread"] = median_and_spread(own)
            if slowest and name in _IN_TURNS:
                ratios = [a / b for a, b in zip(slowest, own, strict=True)]
                numbers["times_faster"], numbers["times_faster_spread"] = median_and_spread(ratios)
        if name is ArmName.GENERATOR:
            numbers["training_s"] = self.generator[1]
            if ArmName.DIRECT.value in seconds:
                saved = median_and_spread(seconds[ArmName.DIRECT.value])[0] - numbers["seconds"]
                numbers |= {"break_even": self.generator[1] / saved} if saved > 0 else {}
        tried = damage(self.victim, made.images, made.labels, self.tried, self.plan.budget).mean
        label = LABELS[name]
        label += f" ({len(made.labels)} poisons)" if len(made.labels) < self.plan.poisons else ""
        return Scored(
            label,
            Evaluation(tried, float("nan"), len(self.tried[1])),
            Evaluation(float(made.accuracies.mean()), float("nan"), len(self.tests[1])),
            numbers,
        )

    def _bases_of(self, name: ArmName) -> ImagesAndLabels:
        return _first(self.bases, self.plan.differences if name is ArmName.DIFFERENCES else self.plan.poisons)

    def _way(self, name: ArmName) -> Way:
        plan, few = self.plan, _first(self.known, self.plan.paper_normal)
        some = _first(self.known, plan.normal)
        if name is ArmName.FLIP:
            return lambda images, labels: (images, self.wrong(labels))
        if name is ArmName.DIFFERENCES:
            return self._direct(few, plan.paper, plan.budget, PoisonMethod.FINITE_DIFFERENCE)
        if name is ArmName.DIRECT:
            return self._direct(few, plan.paper, plan.budget)
        if name is ArmName.DIRECT_LONG:
            return self._direct(some, plan.long, plan.budget)
        if name is ArmName.TRUE_LABEL:
            return self._direct(some, plan.long, replace(plan.budget, flip=False))
        if name is ArmName.SURROGATE:
            return lambda images, labels: self._each_alone(images, labels, few)
        generator, _ = self.generator

        @torch.no_grad()
        def generate(images: Tensor, labels: Tensor) -> ImagesAndLabels:
            return generator(images), self.wrong(labels)

        return generate

    def _direct(
        self, normal: ImagesAndLabels, how: Ascent, budget: PoisonBudget, method: PoisonMethod = PoisonMethod.EXACT
    ) -> Way:
        def climb(images: Tensor, labels: Tensor) -> ImagesAndLabels:
            made = poison(self.victim, images, labels, *normal, budget, method, how, seed=self.seed)
            return made.images, made.labels

        return climb

    @cached_property
    def autoencoder(self) -> nn.Module:
        """Trained to give back training images."""
        torch.manual_seed(self.seed)
        network = self.plan.autoencoder().to(self.course.device)
        pretrain(network, self.known[0], steps=500 if self.plan.generator.rounds > 2 else 2, seed=self.seed)
        return network

    @cached_property
    def generator(self) -> tuple[PoisonGenerator, float]:
        """One for all images, and the seconds that its training took, perhaps beside other seeds."""
        kept = PoisonGenerator(self.plan.autoencoder().to(self.course.device), self.plan.budget)

        def make() -> tuple[dict[str, Tensor], dict[str, float]]:
            network = copy.deepcopy(self.autoencoder)
            started, made = time.perf_counter(), PoisonGenerator(network, self.plan.budget)
            training = replace(self.plan.generator, seed=self.seed)
            made.fit(self.victim, *self.known, *_first(self.known, self.plan.many), training)
            return dict(made.state_dict()), {"seconds": time.perf_counter() - started}

        path = self._folder / "generator.safetensors"
        weights, numbers = kept_or_made_tensors(path, {**self._key, "generator": True}, make, self.course.resume)
        kept.load_state_dict(weights)
        return kept.eval(), numbers["seconds"]

    def _each_alone(self, images: Tensor, labels: Tensor, normal: ImagesAndLabels) -> ImagesAndLabels:
        """A generator for each image, as in the authors' script."""
        made = []
        for image, label in zip(images, labels, strict=True):
            generator = PoisonGenerator(copy.deepcopy(self.autoencoder), self.plan.budget)
            generator.fit(self.victim, image[None], label[None], *normal, self.plan.surrogate)
            made.append(generator(image[None]).detach())
        return torch.cat(made), self.wrong(labels)

    def wrong(self, labels: Tensor) -> Tensor:
        """Labels of poisons."""
        return self.plan.budget.labels_for(labels, len(self.course.splits.classes))

    def _seconds(self, turns: Sequence[ArmName]) -> dict[str, list[float]]:
        """Seconds a poison, turn by turn; of finite differences for one poison, of the others for all."""
        found: dict[str, list[float]] = {name.value: [] for name in turns}
        ways = {name: self._way(name) for name in turns}  # a generator is trained before
        for _ in range(_TURNS):
            for name in turns:
                images, labels = _first(self._bases_of(name), 1 if name is ArmName.DIFFERENCES else self.plan.poisons)
                started, calls = time.perf_counter(), 0
                while time.perf_counter() - started < _LEAST_S:
                    ways[name](images, labels)
                    calls += 1
                found[name.value].append((time.perf_counter() - started) / calls / len(labels))
        return found


def _first(labelled: ImagesAndLabels, count: int) -> ImagesAndLabels:
    return labelled[0][:count], labelled[1][:count]


def _words(names: Sequence[ArmName]) -> str:
    return ", ".join(name.value for name in names)
