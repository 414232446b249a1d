"""A compact network, and domains: labelled source images, unlabelled target images, a network for the target.

Wu, Wen, Afzal, Zhang, Chen, Li: A Compact DNN: Approaching GoogLeNet-Level Accuracy of Classification and Domain
Adaptation, CVPR 2017: a network of Conv-M modules; features that do not tell domains apart, whose distributions are
close, and answers that are adapted.
Departs from the paper: only its abstract was at hand: layers, terms, weights and trainings are chosen here, networks
are pretrained on half of Tiny ImageNet, and images have 64 pixels.
"""

import copy
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from spokeshave.adaptation.domain_pair import DomainPair, pair_domains
from spokeshave.adaptation.frozen_trunk import cut_at_last_pooling
from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, do_side_by_side, require_arms
from spokeshave.arms_output import print_arms, write_arms, write_arms_ledger
from spokeshave.checkpoints import require_same_start
from spokeshave.data import DatasetName, Split, Splits, load
from spokeshave.data.data_folders import ENVIRONMENT
from spokeshave.equal_budget import Course
from spokeshave.errors import InvalidArgument
from spokeshave.processes import is_first, usable_device
from spokeshave.recipes.adaptation_arms import SOURCE, ArmName, Walk, feeding_of, frozen_maps, pretrained_network
from spokeshave.recipes.adaptation_card import write_cards
from spokeshave.recipes.adaptation_figures import confusion_table, feature_chart, network_rows
from spokeshave.recipes.adaptation_forms import Form, deployed, strength_of
from spokeshave.recipes.adaptation_rows import RATES, ROWS, NetworkName, RowPlan
from spokeshave.run_output import command_line, refuse_finished

PAPER: dict[str, dict[str, Any]] = {}
"""Of the paper no number could be read."""
QUANTITIES = {
    "source_error_share": "error on the source, as it is run on the target",
    "probe_share": "a fresh probe tells domains apart",
    "information": "information of target answers, nats",
    "neighbourhood": "density of target answers",
}


class Row(Enum):
    """Source and target: digits, or two of the four domains of Office-Caltech10."""

    DEMO = "demo"
    MNIST_USPS = "mnist-usps"
    USPS_MNIST = "usps-mnist"
    MNIST_MNISTM = "mnist-mnistm"
    AMAZON_CALTECH = "amazon-caltech"
    AMAZON_DSLR = "amazon-dslr"
    AMAZON_WEBCAM = "amazon-webcam"
    CALTECH_AMAZON = "caltech-amazon"
    CALTECH_DSLR = "caltech-dslr"
    CALTECH_WEBCAM = "caltech-webcam"
    DSLR_AMAZON = "dslr-amazon"
    DSLR_CALTECH = "dslr-caltech"
    DSLR_WEBCAM = "dslr-webcam"
    WEBCAM_AMAZON = "webcam-amazon"
    WEBCAM_CALTECH = "webcam-caltech"
    WEBCAM_DSLR = "webcam-dslr"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own; 0 or nothing means what the row has."""

    arms: tuple[ArmName, ...] = (
        ArmName.ADVERSARIAL, ArmName.MMD, ArmName.ENTROPY, ArmName.FULL, ArmName.TARGET,
    )  # fmt: skip
    """What is compared with training on the source alone."""
    network: NetworkName | None = None
    """Network that is adapted."""
    form: Form = Form.DENSE
    """Adapt the network as it is, or compressed first."""
    whole: bool = False
    """Train all layers of a pretrained network, not those behind its last pooling alone (Office-Caltech10)."""
    epochs: int = 0
    """Of every training, in source images."""
    pretraining_epochs: int = 0
    """Of the pretraining on Tiny ImageNet."""
    recovery_epochs: int = 0
    """Of going on with it after the compression; a compressed network has one, a dense one none, if none are given."""
    workers: int = 0
    """Processes that train side by side on a CPU; one a core by default."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the adaptation recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Source and target."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, no seed, no arm, or another data set.
    """
    plan = ROWS[config.row.value]()
    counts = (config.epochs, config.pretraining_epochs, config.recovery_epochs, config.workers)
    if min(counts) < 0:
        raise InvalidArgument(f"expected epochs and workers of at least 0, got {', '.join(map(str, counts))}")
    if config.data is not None:
        raise InvalidArgument("data: a row names both domains; use `spokeshave adapt` for two folders of your own")
    require_arms(config.seeds, config.arms)
    network = config.network or plan.network
    pretraining = None if config.smoke else plan.pretraining
    if pretraining is not None:
        rate, epochs = RATES.get(network, pretraining.learning_rate), config.pretraining_epochs or pretraining.epochs
        pretraining = replace(pretraining, learning_rate=rate, epochs=epochs)
    if config.recovery_epochs and plan.pretraining is None:
        raise InvalidArgument("recovery_epochs: this row has no pretraining to go on with")
    more, recovery = config.recovery_epochs or int(config.form is not Form.DENSE), None
    if pretraining is not None and more:
        recovery = replace(pretraining, epochs=more, seed=1)  # other batches than the pretraining began with
    if config.whole and not plan.frozen:
        raise InvalidArgument("whole: this row trains all layers in any case; it is for rows of Office-Caltech10")
    settings = replace(plan.settings, epochs=config.epochs, steps=0) if config.epochs else plan.settings
    frozen = plan.frozen and not config.whole and pretraining is not None
    return replace(
        plan, network=network, settings=settings, pretraining=pretraining, form=config.form, recovery=recovery,
        frozen=frozen, augment=None if frozen else plan.augment,
    )  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Adapt a network from one domain to another in every way, and compare.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    started, plan, row = time.perf_counter(), plan_of(config), config.row.value
    # One name for all that is compared in one table of the ledger: other networks and forms are rows of their own.
    usual = plan.network is ROWS[config.row.value]().network
    own = [*([] if usual else [plan.network.value]), *(["whole"] if config.whole else [])]
    longer = plan.form is Form.DENSE and plan.recovery is not None
    row = "-".join([row, *own, *([plan.form.value] if plan.form is not Form.DENSE else []), *(["longer"] * longer)])
    run_dir = config.run_dir or Path("runs") / f"adaptation-{row}"
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    domains = domains_of(plan, config)
    if plan.frozen:  # told before hours of pretraining
        cut_at_last_pooling(plan.network.make(len(domains.classes), plan.size))
    names = [SOURCE, *(arm.value for arm in config.arms)]
    course = _pretraining(plan, config, run_dir)
    feeding = feeding_of(plan, domains, course, config.device)
    pretrained = maps = None
    if course is not None:
        pretrained = pretrained_network(plan, course)
        require_same_start(run_dir, pretrained.state_dict(), config.resume)
    if plan.frozen and pretrained is not None:
        maps = frozen_maps(pretrained, domains, feeding, run_dir, config.resume)

    def walks_of(resume: bool) -> list[Walk]:
        return [Walk(plan, domains, run_dir, feeding, pretrained, seed, resume, maps) for seed in config.seeds]

    walks = walks_of(config.resume)
    if _train_in_processes(config, walks, names):
        walks = walks_of(resume=True)
    seeds = {walk.seed: {name: walk.scored(name) for name in names} for walk in walks}
    if not is_first():
        return {}
    first, headline = walks[0], ArmName.FULL.value if ArmName.FULL in config.arms else names[-1]
    shown = {SOURCE: "source only", headline: headline}
    seen = {name: first.both(name) for name in shown}
    record = write_arms(
        seeds,
        run_dir,
        recipe="adaptation",
        row=row,
        title=f"Adaptation: {domains.source.name} to {domains.target.name}",
        headline=headline,
        config={
            "network": plan.network.value, "form": plan.form.value, "by": strength_of(plan.form),
            "frozen": plan.frozen, "size": plan.size,
            "terms": plan.terms.to_dict(), "arms": names[1:],
            "batch_size": plan.batch_size, "smoke": config.smoke, "training": plan.settings.to_dict(),
            "pretraining": None if plan.pretraining is None else plan.pretraining.to_dict(),
            "recovery": None if plan.recovery is None else plan.recovery.to_dict(),
        },
        data=f"{domains.source.name}, {domains.target.name}",
        quantities=QUANTITIES,
        layers={"Network": network_rows(adapted_networks(first, headline), first.example())},
        charts=[
            feature_chart(f"Features: {words}", seen[name][0], seen[name][1], first.seed)
            for name, words in shown.items()
        ],
        tables=[
            confusion_table(f"Target images: {words}", seen[name][1], domains.classes)
            for name, words in shown.items()
        ],
        paper=PAPER.get(row),
        command=command_line(["spokeshave", "run", "adaptation"], config),
        started=started,
    )  # fmt: skip
    write_cards(record, run_dir, plan, first.feeding, domains.classes)
    print_arms(record, run_dir, Console())
    if config.ledger is not None:
        write_arms_ledger(record, config.ledger)
    return asdict(record)


def _train_in_processes(config: Config, walks: list[Walk], names: list[str]) -> bool:
    """Train arms and seeds side by side; what processes leave in the run's folder is found there afterwards.

    Returns:
        Whether there was more than one process to do it.
    """
    pairs = [(f"{name} (seed {walk.seed})", (walk.seed, name)) for walk in walks for name in names]
    return do_side_by_side(config, config.workers, _part, {walk.seed: walk for walk in walks}, pairs)


def _part(walks: dict[int, Walk], job: tuple[int, str], tell: Callable[[Any], None]) -> None:
    seed, arm = job
    walks[seed].train(arm)
    walks[seed].whole.clear()  # in memory until the last job otherwise


def adapted_networks(walk: Walk, arm: str) -> dict[str, tuple[nn.Module, nn.Module]]:
    """The dense network and the one that was adapted, by name: as they are run, and in layers of torch.

    Args:
        walk: that has scored the arm.
        arm: which.
    """
    plan = walk.plan
    network = copy.deepcopy(walk.networks[arm]).to("cpu") if walk.maps is None else walk.start()[0].eval()
    dense = plan.network.make(len(walk.domains.classes), plan.size).eval()
    if plan.form is Form.DENSE:
        return {plan.network.value: (dense, dense)}
    name = f"{plan.network.value}, {plan.form.value}"
    return {plan.network.value: (dense, dense), name: (deployed(network, plan.form, walk.example()), network)}


def domains_of(plan: RowPlan, config: Config) -> DomainPair:
    """Source and target of a row; in a smoke run a few embedded digits."""
    channels = 3
    if config.smoke or plan.target is None:
        digits = load(DatasetName.DIGITS)
        if config.smoke:
            digits = Splits(digits.name, _first(digits.train, 64), _first(digits.test, 32), digits.classes)
        dimmed = Splits("dimmed digits", _dimmed(digits.train), _dimmed(digits.test), digits.classes)
        return pair_domains(digits, dimmed, plan.size, channels)
    source, target = (load(name, config.data_dir) for name in (plan.source, plan.target))
    return pair_domains(source, target, plan.size, channels)


def _pretraining(plan: RowPlan, config: Config, run_dir: Path) -> Course | None:
    if plan.pretraining is None:
        return None
    splits = _pretraining_images(config.data_dir, os.environ.get(ENVIRONMENT))
    start = plan.pretrained(len(splits.classes))
    return Course(start.budget(splits), splits, run_dir, config.resume, config.device)


@lru_cache(maxsize=1)
def _pretraining_images(data_dir: Path | None, default: str | None) -> Splits:
    """Decoded once for all rows of a process: it takes longer than a training of the last stage."""
    return load(DatasetName.TINY_IMAGENET, data_dir)


def _dimmed(split: Split) -> Split:
    """Of half the contrast, on a grey ground."""
    return Split((split.images.float() * 0.4 + 90).to(torch.uint8), split.labels)


def _first(split: Split, count: int) -> Split:
    return split.subset(torch.arange(min(count, len(split))))
