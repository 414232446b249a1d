"""Arms whose trunk is frozen: weights that are saved give what was measured, and the source alone sees no target."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from spokeshave.adaptation.domain_pair import DomainPair
from spokeshave.adaptation.domain_probe import probe_domains
from spokeshave.data import Batches, Split, Splits
from spokeshave.equal_budget import Course
from spokeshave.evaluation import evaluate
from spokeshave.export import load_safetensors
from spokeshave.models import CompactNet
from spokeshave.recipes import adaptation_arms
from spokeshave.recipes.adaptation import Config, Row, adapted_networks, plan_of
from spokeshave.recipes.adaptation_arms import Walk, feeding_of, frozen_maps, pretrained_network
from spokeshave.recipes.adaptation_figures import network_rows
from spokeshave.recipes.adaptation_forms import Form, formed
from spokeshave.recipes.adaptation_rows import NetworkName, RowPlan

CLASSES = tuple("abcdefghij")


def bars(name: str, count: int, brightness: int, seed: int) -> Splits:
    """A bright bar whose place is the class, on noise; as in small sets, training images are the test images too."""
    labels = torch.arange(count) % 10
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 80 + brightness
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, 6 * label : 6 * label + 6] += 90
    split = Split(images.clamp(0, 255).to(torch.uint8), labels)
    return Splits(name, split, split, CLASSES)


SOURCE, TARGET = bars("dark", 60, 10, seed=0), bars("light", 70, 60, seed=1)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(self: NetworkName, classes: int, size: int) -> nn.Module:
        return CompactNet(classes, 224, stages=((8, 8, 1), (8, 12, 1)))

    monkeypatch.setattr(NetworkName, "make", make)


def plan() -> RowPlan:
    made = plan_of(Config(row=Row.AMAZON_DSLR))
    return replace(made, settings=replace(made.settings, steps=12, learning_rate=0.05), batch_size=16)


def walk(folder: Path, target: Splits = TARGET, resume: bool = False, form: Form = Form.DENSE) -> Walk:
    torch.manual_seed(0)
    domains = DomainPair(SOURCE, target, CLASSES)
    start, _ = formed(NetworkName.COMPACT.make(20, 64), form, torch.rand(2, 3, 64, 64))
    feeding = feeding_of(plan(), domains, None, "cpu")
    maps = frozen_maps(start, domains, feeding, folder, resume)
    return Walk(replace(plan(), form=form), domains, folder, feeding, start, 0, resume, maps)


@pytest.mark.parametrize("arm", ["source-only", "full"])
def test_saved_weights_give_what_was_measured(small_networks: None, tmp_path: Path, arm: str) -> None:
    made = walk(tmp_path)
    before = {name: one.clone() for name, one in made.start()[0].state_dict().items()}
    found = made.scored(arm)
    network = NetworkName.COMPACT.make(10, 64).eval()
    load_safetensors(network, tmp_path / "seed-0" / "weights" / f"{arm}.safetensors")

    def images(split: Split) -> Batches:
        return made.feeding.batches(split, 0, training=False)

    target, source = images(TARGET.test), images(SOURCE.test)
    assert evaluate(network, target).accuracy == found.test.accuracy
    assert 1 - evaluate(network, source).accuracy == pytest.approx(found.numbers["source_error_share"])
    with torch.no_grad():
        own = torch.cat([network(some) for some, _ in target])
    seen = made.see(made.networks[arm], made.seen_by(arm).target.test)
    order = own[:, 0].argsort(), seen.logits[:, 0].argsort()  # it sees them in another order
    torch.testing.assert_close(own[order[0]], seen.logits[order[1]], rtol=1e-4, atol=1e-5)
    assert torch.equal(TARGET.test.labels[order[0]], seen.labels[order[1]])
    after = network.state_dict()
    changed = {name for name in after if name in before and not torch.equal(after[name], before[name])}
    weights = {name for name in changed if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert weights and all(name.startswith(("stages.3", "fc")) for name in weights)
    assert any(name.startswith("stem.1.running") for name in changed)  # of the domain, no more of the pretraining
    assert made.whole == {}


def flops_of_weights(network: nn.Module, image: Tensor) -> int:
    """Two for each weight that is not zero and each place that it is used at."""
    found = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        at = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        found.append(2 * int(layer.weight.count_nonzero()) * at[0, 0].numel())

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(note)
    network(image)
    return sum(found)


@pytest.mark.parametrize("form", [Form.SHRUNK, Form.LOW_RANK, Form.SPARSE])
def test_the_last_stage_of_a_compressed_network_is_adapted(small_networks: None, tmp_path: Path, form: Form) -> None:
    made = walk(tmp_path, form=form)
    start = made.start()[0].eval()
    found = made.scored("full")
    folder = tmp_path / "seed-0" / "weights"
    if form is Form.SPARSE:
        network = NetworkName.COMPACT.make(10, 64).eval()
        load_safetensors(network, folder / "full.safetensors")
        zeros = {name for name, one in start.named_parameters() if one.dim() == 4 and not one.all()}
        assert {name.split(".")[1] for name in zeros if name.startswith("stages")} == {"1", "3"}
        assert all(not network.get_parameter(name)[start.get_parameter(name) == 0].any() for name in zeros)
    else:
        network = torch.export.load(folder / "full.pt2").module()
    images, labels = next(iter(made.feeding.batches(TARGET.test, 0, training=False)))
    with torch.no_grad():  # an exported program has no modes
        assert float((network(images).argmax(1) == labels).double().mean()) == pytest.approx(found.test.accuracy)
    rows = network_rows(adapted_networks(made, "full"), made.example())
    assert [row["network"] for row in rows] == ["compact", f"compact, {form.value}"]
    assert rows[1]["parameters"] < rows[0]["parameters"] and rows[1]["flops"] < rows[0]["flops"]
    if form is Form.SPARSE:
        total = sum(one.numel() for one in start.parameters())
        zeros = sum(int((one == 0).sum()) for name, one in start.named_parameters() if one.dim() == 4)
        assert (rows[0]["parameters"], rows[1]["parameters"]) == (total, total - zeros)
        assert rows[1]["flops"] == flops_of_weights(start, torch.rand(1, 3, 64, 64))


def test_the_source_alone_sees_nothing_of_the_target(small_networks: None, tmp_path: Path) -> None:
    other = bars("other", 70, 150, seed=2)
    mixed = Splits("mixed", other.train, TARGET.train, CLASSES)  # other images to train with, the same to test on
    some, others = walk(tmp_path / "some"), walk(tmp_path / "others", mixed)
    assert torch.equal(some.seen_by("source-only").target.test.images, others.seen_by("source-only").target.test.images)
    assert not torch.equal(some.seen_by("full").target.test.images, others.seen_by("full").target.test.images)
    assert some.scored("source-only").test.accuracy == others.scored("source-only").test.accuracy


def test_a_resumed_run_has_the_same_maps(small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = walk(tmp_path).scored("full")

    def never(*_: object) -> None:
        raise AssertionError("maps are there")

    with monkeypatch.context() as patched:
        patched.setattr(adaptation_arms, "pair_through_trunk", cast(Callable[..., Any], never))
        assert walk(tmp_path, resume=True).scored("full").test.accuracy == found.test.accuracy
        with pytest.raises(AssertionError, match="maps are there"):
            walk(tmp_path, bars("other", 70, 150, seed=2), resume=True)


@pytest.mark.parametrize("form", list(Form))
def test_a_pretrained_network_is_compressed_and_recovers_once(
    small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    made = plan_of(Config(row=Row.AMAZON_DSLR, form=form, recovery_epochs=1))
    assert made.pretraining is not None
    settings = replace(made.pretraining, steps=6)
    made = replace(made, pretraining=settings, recovery=replace(settings, seed=1), frozen=False)
    budget = replace(made.pretrained(10).budget(SOURCE), batch_size=8)
    course = Course(budget, SOURCE, tmp_path / "run")
    before = course.exact(0)[0]
    network = pretrained_network(made, course)
    (folder,) = tmp_path.glob(f"further-compact-64-{form.value}-*")
    images = torch.rand(2, 3, 64, 64)
    unrecovered = formed(before, form, images)[0]
    assert [one.shape for one in network.parameters()] == [one.shape for one in unrecovered.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), unrecovered.parameters(), strict=True))
    written = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    again = pretrained_network(made, course)
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == written
    domains = DomainPair(SOURCE, TARGET, CLASSES)
    feeding = feeding_of(made, domains, course, "cpu")
    steps = replace(made, settings=replace(made.settings, steps=3))
    walk = Walk(steps, domains, tmp_path / "run", feeding, network, 0)
    adapted = pickle.loads(pickle.dumps(walk)).train("full").network  # as processes get it
    if form is Form.SPARSE:
        for name, one in unrecovered.named_parameters():
            if name.endswith("weight") and one.dim() == 4:
                zero = one == 0
                assert bool(zero.any()) is (name != "stem.0.weight"), name
                assert not network.get_parameter(name)[zero].any() and not adapted.get_parameter(name)[zero].any()


def test_all_classes_are_seen_where_images_are_sorted_by_class(small_networks: None, tmp_path: Path) -> None:
    order = TARGET.train.labels.argsort()
    split = TARGET.train.subset(order)
    made = walk(tmp_path, Splits("sorted", split, split, CLASSES))
    made.plan, made.maps = replace(made.plan, probed=30), None
    seen = made.see(made.start()[0], made.domains.target.test)
    assert len(seen.labels) == 30 and len(set(seen.labels.tolist())) > 5
    assert len(set(seen.labels[:10].tolist())) > 3


def test_epochs_are_those_of_the_source_for_every_arm(small_networks: None, tmp_path: Path) -> None:
    made = walk(tmp_path, Splits("few", TARGET.train.subset(torch.arange(20)), TARGET.test, CLASSES))
    made.plan = replace(made.plan, settings=replace(made.plan.settings, steps=0, epochs=2), augment=None)
    assert [made.train(arm).history[-1]["step"] for arm in ("source-only", "target")] == [6, 6]


def test_target_labels_never_teach_what_they_test(small_networks: None, tmp_path: Path) -> None:
    made = walk(tmp_path)
    target = made.seen_by("target").target
    assert (len(target.train), len(target.test)) == (35, 35)
    whole = made.seen_by("full").target.train
    rows = [{tuple(one.flatten().tolist()) for one in part.images} for part in (target.train, target.test, whole)]
    assert not rows[0] & rows[1] and rows[0] | rows[1] == rows[2]
    assert made.scored("target").test.images == 35
    other = walk(tmp_path / "other", Splits("other", TARGET.train, SOURCE.test, CLASSES)).seen_by("target").target
    assert (len(other.train), len(other.test)) == (70, 60)  # a test split of its own


def test_a_probe_is_shown_each_domain_under_its_own_statistics(small_networks: None, tmp_path: Path) -> None:
    made = walk(tmp_path)
    found = made.scored("full")
    seen = made.both("full")
    assert found.numbers["probe_share"] == probe_domains(seen[0].features, seen[1].features, 0).accuracy
