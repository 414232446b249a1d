"""The arms of recipe `adaptation`: the network trained on the source alone, with each term, with all, on the target.

All arms of a seed start from the same weights, take as many steps and see the same source batches.
"""

import copy
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor, nn

from spokeshave.adaptation.adapt import HELD_OUT, Adapted, Feeding, adapt
from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Term, Terms
from spokeshave.adaptation.adapting_network import Statistics
from spokeshave.adaptation.domain_pair import DomainPair
from spokeshave.adaptation.domain_probe import probe_domains
from spokeshave.adaptation.feature_layer import features_of, last_layer
from spokeshave.adaptation.frozen_trunk import FeatureMaps, cut_at_last_pooling, pair_through_trunk, through_trunk
from spokeshave.adaptation.label_free_selection import Selector, selection_score
from spokeshave.adaptation.target_statistics import refresh_statistics
from spokeshave.arms_output import Scored
from spokeshave.data import Batches, ImageStandardization, Split, Splits
from spokeshave.data.normalization import Normalization
from spokeshave.equal_budget import Course
from spokeshave.evaluation import Evaluation, evaluate
from spokeshave.export import export, safetensors_bytes
from spokeshave.files import atomic_write
from spokeshave.kept_results import kept_or_made_tensors
from spokeshave.processes import is_first
from spokeshave.recipes.adaptation_forms import SAME_LAYERS, formed, held_in, strength_of
from spokeshave.recipes.adaptation_rows import RowPlan
from spokeshave.regularizers import Regularizer
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.tensor_digest import digest

SOURCE, SOURCE_LABEL = "source-only", "trained on the source alone"


class ArmName(Enum):
    """What a network is trained with beside the labels of the source."""

    ADVERSARIAL = "adversarial"
    MMD = "mmd"
    CORAL = "coral"
    WASSERSTEIN = "wasserstein"
    ENTROPY = "entropy"
    FULL = "full"
    FULL_RESIDUAL = "full-residual"
    TARGET = "target"


LABELS = {
    ArmName.ADVERSARIAL: "a domain classifier behind a reversed gradient",
    ArmName.MMD: "kernel mean discrepancy of features and answers",
    ArmName.CORAL: "distance of covariances of features",
    ArmName.WASSERSTEIN: "sliced Wasserstein distance of features",
    ArmName.ENTROPY: "entropy of target answers, and their balance",
    ArmName.FULL: "invariance, divergence and prediction together",
    ArmName.FULL_RESIDUAL: "the same, with a residual classifier",
    ArmName.TARGET: "trained on labelled target images, and tested on others: not adaptation, but the aim",
}
_ALONE = {ArmName.CORAL: Term(1.0), ArmName.WASSERSTEIN: Term(1.0)}
"""Weights of terms that the full method leaves out."""


def terms_of(arm: ArmName, full: Terms) -> Terms:
    """The terms of an arm.

    Args:
        arm: any but `TARGET`.
        full: of the full method.

    Example:
        >>> terms_of(ArmName.MMD, Terms()).mmd.weight, terms_of(ArmName.MMD, Terms()).adversarial.weight
        (1.0, 0.0)
    """
    if arm in (ArmName.FULL, ArmName.FULL_RESIDUAL):
        return full
    names = ("entropy", "diversity") if arm is ArmName.ENTROPY else (arm.value,)
    return replace(SOURCE_ONLY, **{name: _ALONE.get(arm, getattr(full, name)) for name in names})


@dataclass(frozen=True, eq=False)
class Seen:
    """Features and answers of a network on one domain, in a random order.

    Attributes:
        features: what its last layer was fed.
        logits: its answers.
        labels: the true classes.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Maps:
    """Both domains as feature maps of a frozen trunk.

    Attributes:
        by_source: under the source's statistics of batch normalization: nothing is seen of the target.
        by_each: under those of each domain.
        abroad: test images of the source under the target's, as the adapted network sees them.
    """

    by_source: DomainPair
    by_each: DomainPair
    abroad: FeatureMaps


def feeding_of(plan: RowPlan, domains: DomainPair, pretrained: Course | None, device: str) -> Feeding:
    """Images, normalized by the statistics of the source, of what the network has seen before, or by their own."""
    seen = domains.source.train if pretrained is None else pretrained.training
    normalize = ImageStandardization() if plan.per_image else Normalization.per_channel(seen)
    return Feeding(plan.batch_size, normalize, None, plan.augment, device)


def pretrained_network(plan: RowPlan, course: Course) -> nn.Module:
    """The pretrained network in the form of a row, after its recovery; on the CPU.

    Args:
        plan: of the row.
        course: of the pretraining.
    """
    network = course.exact(0)[0].to("cpu")
    origin = {"network": digest(network.state_dict()), "form": plan.form.value, "by": strength_of(plan.form)}
    network, kept = formed(network, plan.form, torch.rand(2, 3, plan.size, plan.size))
    if plan.recovery is not None:
        course.further(f"{plan.network.value}-{plan.size}-{plan.form.value}", origin, network, plan.recovery, kept)
    return network.to("cpu")


def frozen_maps(network: nn.Module, domains: DomainPair, feeding: Feeding, run_dir: Path, resume: bool = False) -> Maps:
    """What the pretrained trunk makes of all images.

    Args:
        network: pretrained; left as it is.
        domains: images.
        feeding: of images.
        run_dir: maps are kept there: other threads round them otherwise, and a resumed training is of the same ones.
        resume: look for them there.
    """
    trunk = cut_at_last_pooling(copy.deepcopy(network).to(feeding.device))[0]

    def batches(split: Split) -> Batches:
        return feeding.batches(split, 0, training=False)

    def make() -> tuple[dict[str, Tensor], dict[str, float]]:
        pairs = {own: pair_through_trunk(trunk, domains, batches, own) for own in (False, True)}
        made = {f"{own}.{name}": one for own, pair in pairs.items() for name, one in _tensors(pair).items()}
        return made | {"abroad": through_trunk(trunk, batches(domains.source.test)).images}, {}

    images = {name: digest({"images": one}) for name, one in _tensors(domains).items()}
    key = {"network": digest(network.state_dict()), "statistics": "of batches in a random order", **images}
    found, _ = kept_or_made_tensors(run_dir / "maps.safetensors", key, make, resume)
    pairs = [_with_maps(domains, {name: found[f"{own}.{name}"] for name in images}) for own in (False, True)]
    return Maps(pairs[0], pairs[1], FeatureMaps(found["abroad"], domains.source.test.labels))


def _tensors(domains: DomainPair) -> dict[str, Tensor]:
    """Images, or maps, of each split of each domain; those of a test split that is none once."""
    found = {}
    for name, splits in (("source", domains.source), ("target", domains.target)):
        found[f"{name}.train"] = splits.train.images
        if splits.test.images is not splits.train.images:
            found[f"{name}.test"] = splits.test.images
    return found


def _with_maps(domains: DomainPair, found: dict[str, Tensor]) -> DomainPair:
    """The same domains with maps in place of images."""
    made = []
    for name, splits in (("source", domains.source), ("target", domains.target)):
        train = FeatureMaps(found[f"{name}.train"], splits.train.labels)
        test = FeatureMaps(found[f"{name}.test"], splits.test.labels) if f"{name}.test" in found else train
        made.append(Splits(splits.name, train, test, splits.classes))
    return DomainPair(made[0], made[1], domains.classes)


class Walk:
    """One seed of a row.

    Args:
        plan: of the row.
        domains: source and target, in one shape.
        run_dir: of the run.
        feeding: of images of both domains.
        pretrained: the network that all seeds begin with; None where each draws its weights.
        seed: of weights and batches.
        resume: go on from checkpoints.
        maps: of `frozen_maps`, where the last stage alone is trained; None where all layers are.
    """

    def __init__(
        self,
        plan: RowPlan,
        domains: DomainPair,
        run_dir: Path,
        feeding: Feeding,
        pretrained: nn.Module | None,
        seed: int,
        resume: bool = False,
        maps: Maps | None = None,
    ) -> None:
        self.plan, self.domains, self.run_dir, self.feeding = plan, domains, run_dir, feeding
        self.pretrained, self.seed, self.resume, self.maps = pretrained, seed, resume, maps
        self.networks: dict[str, nn.Module] = {}
        self.whole: dict[str, nn.Module] = {}

    def start(self) -> tuple[nn.Module, list[Regularizer]]:
        """The network that all arms of the seed begin with, and what keeps it in its form."""
        classes, images = len(self.domains.classes), torch.rand(2, 3, self.plan.size, self.plan.size)
        if self.pretrained is None:
            torch.manual_seed(self.seed)
            return formed(self.plan.network.make(classes, self.plan.size), self.plan.form, images)
        network = copy.deepcopy(self.pretrained)
        torch.manual_seed(self.seed)
        network = with_classes(network, classes, images)
        return network, held_in(network, self.plan.form)

    def seen_by(self, arm: str) -> DomainPair:
        """Both domains as the trained layers of an arm are fed them: images, or feature maps.

        Where all target images are test images, half of them, drawn by the seed, teach the arm that is shown labels,
        and the others test it.
        """
        pair = self.domains
        if self.maps is not None:
            pair = self.maps.by_source if arm == SOURCE else self.maps.by_each
        target = pair.target
        if arm != ArmName.TARGET.value or target.train.images is not target.test.images:
            return pair
        halves = target.train.hold_out(0.5, self.seed)
        return DomainPair(pair.source, Splits(target.name, *halves, target.classes), pair.classes)

    def train(self, arm: str) -> Adapted:
        """Train the network of an arm, or go on where it was left; of a frozen one what is behind the trunk."""
        plan, domains = self.plan, self.seen_by(arm)
        settings = replace(plan.settings, seed=1000 * (1 + self.seed), steps=self._steps())
        source, target, residual = domains.source.train, domains.target.train, False
        terms = SOURCE_ONLY
        if arm == ArmName.TARGET.value:
            source = target
        elif arm != SOURCE:
            terms, residual = terms_of(ArmName(arm), plan.terms), arm == ArmName.FULL_RESIDUAL.value
        network, kept = self.start()
        if settings.slow != 1.0:  # what was not trained before learns at the full rate
            head = last_layer(network, torch.zeros(2, 3, plan.size, plan.size))
            settings = replace(settings, fast=("domain_classifier", "residual", f"network.{head}"))
        if self.maps is not None:
            self.whole[arm], network = network, cut_at_last_pooling(network)[1]
        return adapt(
            network, source, target, terms, settings, self._feeding(source), residual, Statistics.EACH,
            run_dir=self.run_dir / f"seed-{self.seed}" / arm, resume=self.resume, label=f"{arm} (seed {self.seed})",
            refresh=arm != SOURCE, regularizers=kept,
        )  # fmt: skip

    def scored(self, arm: str) -> Scored:
        """The network of an arm on test images of the target, and how alike it finds the domains."""
        made, domains = self.train(arm), self.seen_by(arm)
        network = self.networks[arm] = made.network
        self._keep(arm, network)
        test = evaluate(network, self._batches(domains.target.test))
        last = made.history[-1]
        held_out = Evaluation(last["validation_accuracy"], last["validation_loss"], 0)
        at_home = domains.source.test if self.maps is None or arm == SOURCE else self.maps.abroad
        seen = self.both(arm)
        unlabelled = self.see(network, domains.target.train)
        numbers = {
            "source_error_share": 1 - evaluate(network, self._batches(at_home)).accuracy,
            "probe_share": probe_domains(seen[0].features, seen[1].features, self.seed).accuracy,
            "information": selection_score(unlabelled.logits, Selector.INFORMATION),
            "neighbourhood": selection_score(unlabelled.logits, Selector.NEIGHBOURHOOD),
        }
        label = SOURCE_LABEL if arm == SOURCE else LABELS[ArmName(arm)]
        return Scored(label, held_out, test, numbers, {arm: made.history})

    def both(self, arm: str) -> list[Seen]:
        """Test images of the source and of the target, each under the statistics of its own domain, as in training."""
        network, domains = self.networks[arm], self.seen_by(arm)
        at_home = copy.deepcopy(network)
        refresh_statistics(at_home, self._batches(domains.source.train))
        return [self.see(at_home, domains.source.test), self.see(network, domains.target.test)]

    def example(self) -> Tensor:
        """One image as networks are fed."""
        return self._first_images(self.domains.source.test)[:1].cpu()

    @torch.no_grad()
    def see(self, network: nn.Module, split: Split) -> Seen:
        """Features and answers for some images of a split, in a random order: sets are often sorted by class."""
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        few = split.subset(order[: self.plan.probed])
        batches = self._batches(few)
        layer = last_layer(network, self._first_images(few))
        with features_of(network.eval(), layer) as found:
            logits = torch.cat([network(images) for images, _ in batches])
        return Seen(torch.cat(found).cpu(), logits.cpu(), few.labels)

    def _steps(self) -> int:
        """Of every arm's training, the one on the target too: epochs are those of the source."""
        settings, source = self.plan.settings, self.seen_by(SOURCE).source.train
        share = len(source) - round(HELD_OUT * len(source))
        return settings.total_steps(max(1, share // self.plan.batch_size))

    def _feeding(self, split: Split) -> Feeding:
        if isinstance(split, FeatureMaps):
            return replace(self.feeding, normalize=None, augment=None)
        return self.feeding

    def _batches(self, split: Split) -> Batches:
        return self._feeding(split).batches(split, 0, training=False)

    def _first_images(self, split: Split) -> Tensor:
        """Two images as networks are fed."""
        return next(iter(self._batches(split)))[0][:2]

    def _keep(self, arm: str, network: nn.Module) -> None:
        """Write the weights of the whole network, as it is run on the target."""
        if not is_first():
            return
        if arm in self.whole:  # it holds the layers that were trained; its trunk has yet to see the domain
            network = self.whole.pop(arm).to(self.feeding.device).eval()
            domain = self.domains.source if arm == SOURCE else self.domains.target
            refresh_statistics(cut_at_last_pooling(network)[0], self._batches(domain.train))
        folder = self.run_dir / f"seed-{self.seed}" / "weights"
        if self.plan.form in SAME_LAYERS:
            atomic_write(folder / f"{arm}.safetensors", safetensors_bytes(network))
        else:  # widths and layers follow from the compression: the file carries them
            folder.mkdir(parents=True, exist_ok=True)
            export(copy.deepcopy(network).to("cpu"), folder / f"{arm}.pt2", self.example())


def with_classes(network: nn.Module, classes: int, example: Tensor) -> nn.Module:
    """Give a network a new last layer, for other classes; in place.

    Args:
        network: gives logits.
        classes: number of the new ones.
        example: a batch that it takes.
    """
    name = last_layer(network, example)
    old, made = network.get_submodule(name), None
    if isinstance(old, nn.Linear):
        made = nn.Linear(old.in_features, classes)
    elif isinstance(old, CONVOLUTIONS):
        made = nn.Conv2d(old.in_channels, classes, 1)
    assert made is not None and made.bias is not None
    nn.init.normal_(made.weight, std=0.01)
    nn.init.zeros_(made.bias)
    network.set_submodule(name, made)
    return network
