"""The recipe of adaptation through the real command line: every arm, resuming, options, figures; its parts by hand."""

import ast
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Terms
from spokeshave.cli.main import main
from spokeshave.cli.run import parse
from spokeshave.errors import InvalidArgument
from spokeshave.export import load_safetensors
from spokeshave.models import CompactNet, LeNet, SmallCNN, SqueezeNet
from spokeshave.recipes.adaptation import Config, Row, domains_of, plan_of
from spokeshave.recipes.adaptation_arms import LABELS, ArmName, Seen, terms_of, with_classes
from spokeshave.recipes.adaptation_figures import confusion_table, feature_chart
from spokeshave.recipes.adaptation_forms import Form, deployed, formed, without_small_filters
from spokeshave.recipes.adaptation_rows import ROWS, NetworkName
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.run_output import command_line
from spokeshave.timing import using_threads


def smoke(tmp_path: Path, *options: str) -> ArmsRecord:
    words = ["run", "adaptation", "--smoke", "--epochs", "2", "--run-dir", str(tmp_path / "run"), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / "run")


def test_rows_and_arms_are_whole() -> None:
    assert set(ROWS) == {row.value for row in Row} and set(LABELS) == set(ArmName)
    office = [plan for plan in (make() for make in ROWS.values()) if plan.pretraining is not None]
    assert len({(plan.source, plan.target) for plan in office}) == 12
    for plan in office:
        assert plan.pretrained(200).network().training


def test_a_smoke_run_compares_every_arm_and_resume_repeats_it(tmp_path, capsys) -> None:
    arms = [arm.value for arm in ArmName]
    record = smoke(tmp_path, "--arms", *arms)
    assert [arm.name for arm in record.arms] == ["source-only", *arms] and record.headline == "full"
    for arm in record.arms:
        share, error = arm.number("probe_share"), arm.number("source_error_share")
        assert share is not None and 0 <= share <= 1 and error is not None and 0 <= error <= 1
    assert [chart.title for chart in record.charts] == ["Features: source only", "Features: full"]
    assert [len(table.values) for table in record.tables] == [10, 10]
    assert record.layers["Network"][0]["parameters"] == sum(
        p.numel() for p in SmallCNN(3, 28, 32, 128, 10, True).parameters()
    )
    load_safetensors(
        SmallCNN(3, 28, 32, 128, 10, batch_norm=True), tmp_path / "run" / "seed-0" / "weights" / "full.safetensors"
    )
    assert "page:" in capsys.readouterr().out and (tmp_path / "run" / "report.html").stat().st_size > 20_000
    again = smoke(tmp_path, "--arms", *arms, "--resume")
    assert [arm.errors for arm in again.arms] == [arm.errors for arm in record.arms]


def test_arms_side_by_side_find_the_same(tmp_path) -> None:
    words = ["run", "adaptation", "--epochs", "1", "--arms", "full", "--seeds", "0", "1"]
    with using_threads(1):  # as in the processes: sums of several threads round differently
        for workers in ("1", "2"):
            assert main([*words, "--workers", workers, "--run-dir", str(tmp_path / workers)]) == 0
    alone, together = (ArmsRecord.load(tmp_path / workers) for workers in ("1", "2"))
    assert [arm.errors for arm in together.arms] == [arm.errors for arm in alone.arms]
    assert [arm.numbers for arm in together.arms] == [arm.numbers for arm in alone.arms]


def test_an_office_row_runs_on_another_network(tmp_path) -> None:
    record = smoke(tmp_path, "--row", "amazon-webcam", "--network", "squeezenet", "--arms", "full")
    assert record.config["network"] == "squeezenet" and record.layers["Network"][0]["network"] == "squeezenet"
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["config"]["pretraining"] is None  # a smoke run does without


def test_a_network_whose_last_layer_has_another_name(tmp_path) -> None:
    record = smoke(tmp_path, "--row", "amazon-dslr", "--network", "small", "--arms", "full-residual")
    assert record.row == "amazon-dslr-small" and len(record.arms) == 2


def test_lenet_adapts_digits_and_refuses_larger_images(tmp_path, capsys) -> None:
    record = smoke(tmp_path, "--network", "lenet", "--arms", "full")
    assert record.row == "demo-lenet" and record.layers["Network"][0]["parameters"] == 432_080
    words = ["run", "adaptation", "--smoke", "--row", "amazon-webcam", "--network", "lenet"]
    assert main([*words, "--run-dir", str(tmp_path / "other")]) == 2
    assert "lenet takes images of 28 pixels, those of this row have 64" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "share"), [("sparse", 0.5), ("shrunk", 0.8)])
def test_a_compressed_network_is_adapted(tmp_path, form: str, share: float) -> None:
    record = smoke(tmp_path, "--network", "compact", "--row", "amazon-dslr", "--form", form, "--arms", "full")
    rows = record.layers["Network"]
    assert record.row == f"amazon-dslr-{form}" and len(rows) == 2
    assert rows[1]["parameters"] < share * rows[0]["parameters"]
    network = loaded_as_the_card_says(tmp_path / "run" / "seed-0" / "weights")
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def loaded_as_the_card_says(folder: Path) -> torch.nn.Module:
    """Run the code of a card of weights, in its folder."""
    card, names = (folder / "README.md").read_text(), {}
    code = card.split("```python\n")[1].split("```")[0]
    exec(re.sub(r'"(full[.]\w+)"', lambda found: repr(str(folder / found[1])), code), names)
    for file in re.findall(r"`([\w-]+[.](?:safetensors|pt2))`", card):
        assert (folder / file).is_file()
    return names["network"]


def test_weights_are_loaded_and_fed_as_their_card_says(tmp_path) -> None:
    words = ["run", "adaptation", "--epochs", "1", "--arms", "full", "--workers", "1"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 0
    folder = tmp_path / "run" / "seed-0" / "weights"
    network, card = loaded_as_the_card_says(folder), (folder / "README.md").read_text()
    config = Config()
    test = domains_of(plan_of(config), config).target.test
    numbers = [ast.literal_eval(text) for text in re.findall(r"\[[-0-9., ]+\]", card)]
    mean, deviation = (torch.tensor(row).view(3, 1, 1) for row in numbers)
    with torch.no_grad():
        answers = network((test.images / 255 - mean) / deviation).argmax(1)
    error = 1 - (answers == test.labels).double().mean().item()
    record = ArmsRecord.load(tmp_path / "run")
    assert error == pytest.approx(record.main.errors[0], abs=0.01)
    assert f"| `full.safetensors` | {record.main.label} | {100 * record.main.errors[0]:.2f} (0) |" in card
    assert "spokeshave run adaptation" in card and card.startswith("---\nlibrary_name: spokeshave\n")


@pytest.mark.parametrize("form", list(Form))
def test_forms_of_the_small_network(form: Form) -> None:
    network, images = SmallCNN(3, 28, 8, 16, 10, batch_norm=True).eval(), torch.rand(2, 3, 28, 28)
    made, _ = formed(network, form, images)
    assert deployed(made.eval(), form, images)(images).shape == (2, 10)


@pytest.mark.parametrize("form", list(Form))
def test_forms_of_the_compact_network(form: Form) -> None:
    network = CompactNet(5, 32, stages=((16, 16, 1), (16, 24, 1))).eval()
    images = torch.rand(2, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made, kept = formed(network, form, images)
    assert made(images).shape == (2, 5) and len(kept) == (form is Form.SPARSE)
    torch.testing.assert_close(dict(network.state_dict()), before)
    count = [sum(int(one.count_nonzero()) for one in net.parameters()) for net in (network, made)]
    assert (count[1] < count[0]) is (form is not Form.DENSE)
    last = made.get_submodule("fc")  # new, and small everywhere: nothing is chosen by its weights
    assert isinstance(last, torch.nn.Linear) and bool(last.weight.all())
    if form is Form.SPARSE:
        assert bool(made.get_parameter("stem.0.weight").all())
    torch.testing.assert_close(deployed(made.eval(), form, images)(images), made(images), rtol=1e-4, atol=1e-5)


def test_kernels_that_read_images_are_spared() -> None:
    network, images = LeNet(), torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        network.conv1.weight *= 1e-3  # ranked with the others they would all go
    made = formed(network, Form.SPARSE, images)[0]
    zeros = {name: float((one == 0).double().mean()) for name, one in made.named_parameters() if one.dim() > 1}
    assert zeros["conv1.weight"] == zeros["ip2.weight"] == 0
    assert zeros["conv2.weight"] > 0.3 and zeros["ip1.weight"] > 0.6


def test_a_network_of_two_layers_keeps_the_last() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 9), torch.nn.ReLU(), torch.nn.Linear(9, 4))
    made = formed(network, Form.SPARSE, torch.rand(2, 3, 4, 4))[0]
    assert float((made.get_parameter("1.weight") == 0).double().mean()) == pytest.approx(0.7, abs=0.01)
    assert bool(made.get_parameter("3.weight").all())


def test_small_filters_go() -> None:
    network, images = LeNet(), torch.rand(2, 1, 28, 28)
    zeroed = without_small_filters(network, 0.5, images)
    norms = network.conv2.weight.flatten(1).norm(dim=1)
    gone = (zeroed.conv2.weight.flatten(1).norm(dim=1) == 0).nonzero().flatten()
    assert sorted(gone.tolist()) == sorted(norms.argsort()[:25].tolist()) and bool((norms > 0).all())
    small = formed(network, Form.SHRUNK, images)[0]
    assert small.get_submodule("conv2").weight.shape[0] == 35 and small(images).shape == (2, 10)


def test_terms_of_arms() -> None:
    full = Terms()
    assert terms_of(ArmName.FULL, full) == terms_of(ArmName.FULL_RESIDUAL, full) == full
    for arm in (ArmName.ADVERSARIAL, ArmName.MMD, ArmName.CORAL, ArmName.WASSERSTEIN):
        terms = terms_of(arm, full)
        assert getattr(terms, arm.value).weight > 0
        assert replace(terms, **{arm.value: getattr(SOURCE_ONLY, arm.value)}) == SOURCE_ONLY
    assert terms_of(ArmName.ENTROPY, full).diversity.weight > 0 == terms_of(ArmName.ENTROPY, full).mmd.weight


def test_options_change_the_plan_and_wrong_ones_are_refused() -> None:
    plan = plan_of(Config(row=Row.AMAZON_DSLR, epochs=3, pretraining_epochs=2, network=NetworkName.ALEXNET))
    assert plan.settings.epochs == 3 and plan.network is NetworkName.ALEXNET
    assert plan.pretraining is not None and plan.pretraining.epochs == 2 and plan.frozen
    other = plan_of(Config(row=Row.AMAZON_DSLR, whole=True)).pretraining
    assert other is not None and other.learning_rate != plan.pretraining.learning_rate
    assert not plan_of(Config(row=Row.AMAZON_DSLR, whole=True)).frozen
    shrunk = plan_of(Config(row=Row.AMAZON_DSLR, form=Form.SHRUNK))
    assert shrunk.frozen and shrunk.recovery is not None and shrunk.recovery.epochs == 1
    assert plan.recovery is None and not plan_of(Config(row=Row.AMAZON_DSLR, form=Form.SHRUNK, whole=True)).frozen
    longer = plan_of(Config(row=Row.AMAZON_DSLR, recovery_epochs=3)).recovery
    assert longer is not None and longer.epochs == 3
    from spokeshave.data import DatasetName

    for options in (
        {"epochs": -1},
        {"workers": -1},
        {"recovery_epochs": -1},
        {"recovery_epochs": 1},
        {"seeds": ()},
        {"arms": ()},
        {"data": DatasetName.MNIST},
        {"whole": True},
    ):
        with pytest.raises(InvalidArgument):
            plan_of(Config(**options))


def test_the_recorded_command_repeats_the_run() -> None:
    config = Config(row=Row.USPS_MNIST, seeds=(1, 2), arms=(ArmName.MMD, ArmName.FULL), resume=True)
    words = shlex.split(command_line(["spokeshave", "run", "adaptation"], config))
    assert parse(Config, words[3:], "spokeshave run adaptation", "") == replace(config, resume=False)


@pytest.mark.parametrize("network", [SmallCNN(3, 28), SqueezeNet(10, 32)])
def test_a_new_last_layer_has_the_classes(network: torch.nn.Module) -> None:
    images = torch.rand(2, 3, 28, 28)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert with_classes(network, 4, images)(images).shape == (2, 4)
    changed = {name for name, tensor in network.state_dict().items() if tensor.shape != before[name].shape}
    assert len(changed) == 2


def test_tables_and_pictures_by_hand() -> None:
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    seen = Seen(torch.randn(4, 5), logits, torch.tensor([0, 1, 1, 2]))
    table = confusion_table("some", seen, ["a", "b", "c"])
    assert table.values == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    chart = feature_chart("some", seen, seen, 0)
    assert [curve.label for curve in chart.curves] == ["source", "target"]
    assert all(len(curve.xs) == len(curve.ys) == 4 and curve.points for curve in chart.curves)
