"""The recipe of one-level synapses through the real command line: every arm, resuming, options, figures."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spokeshave.cli.main import main
from spokeshave.cli.run import parse
from spokeshave.errors import InvalidArgument
from spokeshave.export import load_safetensors
from spokeshave.float_networks import lenet
from spokeshave.models import LeNet
from spokeshave.recipes.one_level import PAPER, Config, Row, plan_of
from spokeshave.recipes.one_level_arms import LABELS, ArmName, level_rows, weight_charts, weights_of
from spokeshave.recipes.one_level_rows import ROWS
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.rewrites import one_level
from spokeshave.run_output import command_line


def smoke(tmp_path: Path, row: str, *options: str) -> ArmsRecord:
    words = ["run", "one_level", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / row)


def test_rows_and_arms_are_whole():
    names = {row.value for row in Row}
    assert set(ROWS) == names and set(PAPER) == names - {"demo"} and set(LABELS) == set(ArmName)
    assert all(set(paper["gap"]) <= {arm.value for arm in ArmName} for paper in PAPER.values())
    plan = ROWS["lenet"]()
    assert plan.start() == lenet() or plan.start().name == "lenet"
    assert plan.pull.epochs == plan.through.epochs == plan.control.epochs and plan.bias.epochs == 1


def test_a_smoke_run_compares_every_arm_and_resume_repeats_it(tmp_path, capsys):
    record = smoke(tmp_path, "lenet")
    arms = {arm.name: arm for arm in record.arms}
    assert list(arms) == ["float", *(arm.value for arm in ArmName)] and record.headline == "dq-qr-bt"
    for name, arm in arms.items():
        at_levels = name not in ("float", "control")
        assert (arm.number("zero_share") is not None) is at_levels and arm.number("values") in (None, 3)
    assert arms["qr"].number("apart_share") > 0 and arms["dq"].number("apart_share") is None
    assert list(record.layers) == ["dq", "dq-qr-bt", "st-bt"]
    assert [row["layer"] for row in record.layers["dq"]] == ["conv1", "conv2", "ip1", "ip2"]
    assert [chart.title for chart in record.charts] == ["conv1", "conv2", "ip1", "ip2"]
    # A stage that two arms share was trained once.
    stages = sorted(path.name for path in (tmp_path / "lenet" / "seed-0").iterdir())
    assert stages == ["control", "dq-bt", "dq-qr", "dq-qr-bt", "qr", "st", "st-bt", "weights"]
    network = LeNet()
    load_safetensors(network, tmp_path / "lenet" / "seed-0" / "weights" / "st-bt.safetensors")
    assert level_rows(network) == record.layers["st-bt"] and network.conv1.weight.unique().numel() == 3
    assert "page:" in capsys.readouterr().out and (tmp_path / "lenet" / "report.html").stat().st_size > 20_000
    again = smoke(tmp_path, "lenet", "--resume")
    assert [arm.errors for arm in again.arms] == [arm.errors for arm in record.arms] and again.layers == record.layers


def test_some_arms_on_another_row(tmp_path):
    record = smoke(tmp_path, "mlp", "--arms", "dq-means", "st", "--seeds", "0", "1")
    assert [arm.name for arm in record.arms] == ["float", "dq-means", "st"] and record.headline == "st"
    assert record.charts == [] and record.layers == {}


def test_strengths_are_tried_on_the_validation_split_alone(tmp_path, capsys):
    words = ["run", "one_level", "--row", "mlp", "--smoke", "--run-dir", str(tmp_path / "run")]
    assert main([*words, "--try-strengths", "0.1", "10"]) == 0
    shown = capsys.readouterr().out
    assert "strength 0.1:" in shown and "strength 10:" in shown and not (tmp_path / "run" / "run.json").exists()


def test_options_change_the_plan_and_wrong_ones_are_refused():
    plan = plan_of(Config(row=Row.MLP, strength=0.5, epochs=3, bias_epochs=2))
    assert (plan.strength, plan.pull.epochs, plan.control.epochs, plan.bias.epochs) == (0.5, 3, 3, 2)
    wrong = [{"epochs": -1}, {"strength": -1.0}, {"seeds": ()}, {"arms": ()}, {"arms": (ArmName.DQ, ArmName.DQ)}]
    for options in [*wrong, {"try_strengths": (float("inf"),)}]:
        with pytest.raises(InvalidArgument):
            plan_of(Config(row=Row.MLP, **options))


def test_the_recorded_command_repeats_the_run():
    config = Config(row=Row.LENET, seeds=(1, 2), arms=(ArmName.DQ, ArmName.ST), strength=0.25, resume=True)
    words = shlex.split(command_line(["spokeshave", "run", "one_level"], config))
    assert parse(Config, words[3:], "spokeshave run one_level", "") == replace(config, resume=False)


def test_rows_and_charts_of_layers_by_hand():
    net = nn.Sequential(nn.Linear(4, 1))
    net[0].weight.data = torch.tensor([[0.1, -3.0, 0.2, 2.0]])
    new, _ = one_level(net, torch.ones(1, 4))
    assert level_rows(new) == [
        {"layer": "0", "weights": 4, "g": 2.5, "zero_share": 0.5, "plus_share": 0.25, "minus_share": 0.25}
    ]
    (chart,) = weight_charts(net, net, new)
    before, _, levels = chart.curves
    assert sum(share or 0.0 for share in before.ys) == pytest.approx(1.0)
    assert levels.xs == [-2.5] * 3 + [0.0] * 3 + [2.5] * 3 and levels.ys[1::3] == [0.25, 0.5, 0.25]
    assert list(weights_of(net)) == ["0"]
