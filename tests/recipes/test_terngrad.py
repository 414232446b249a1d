"""The TernGrad recipe through the real command line: rows run, alone and by two processes, and refuse what is wrong."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spokeshave.checkpoints import load_checkpoint
from spokeshave.cli.main import main
from spokeshave.cli.run import parse
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.communication.ternary_wire import Wire
from spokeshave.data import DatasetName
from spokeshave.recipes.terngrad import PAPER, Config, Row, plan_of
from spokeshave.recipes.terngrad_rows import ROWS
from spokeshave.report.exchange_record import ExchangeRecord
from spokeshave.run_output import command_line
from spokeshave.train_settings import OptimizerName, Schedule


def smoke(tmp_path: Path, row: str, *options: str) -> ExchangeRecord:
    words = ["run", "terngrad", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ExchangeRecord.load(tmp_path / row / "run.json")


def test_every_row_has_a_plan_and_every_paper_row_a_name():
    names = {row.value for row in Row}
    assert set(ROWS) == names and set(PAPER) == names - {"demo", "cifarnet-2-noclip"}
    for name, paper in PAPER.items():
        assert paper["gap"] == pytest.approx(paper["float_accuracy"] - paper["accuracy"])
        assert ROWS[name]().workers == paper["workers"]


def test_rows_are_the_papers():
    lenet, cifarnet, unclipped = (ROWS[row]() for row in ("lenet-8", "cifarnet-2", "cifarnet-2-noclip"))
    settings = lenet.budget.settings
    assert (settings.learning_rate, settings.momentum, settings.weight_decay) == (0.01, 0.9, 5e-4)
    assert (settings.schedule, settings.power, lenet.budget.batch_size) == (Schedule.POLYNOMIAL, 0.5, 64)
    settings = cifarnet.budget.settings
    assert settings.optimizer is OptimizerName.ADAM and settings.weight_decay == 0.004
    assert settings.decayed == ("fc3", "fc4") and cifarnet.budget.batch_size == 128
    assert replace(cifarnet, options=unclipped.options).options == TernaryOptions(clip_factor=None, min_numel=1)
    assert cifarnet.options == TernaryOptions(clip_factor=2.5, min_numel=1) and unclipped.budget is not None
    assert unclipped.budget.settings == settings


@pytest.mark.parametrize("row", ["lenet-2", "lenet-4", "cifarnet-2", "cifarnet-2-noclip"])
def test_a_smoke_run_leaves_record_page_and_table(tmp_path, row, capsys):
    record = smoke(tmp_path, row)
    plan = ROWS[row]()
    names = [name for name, _ in plan.budget.network().named_parameters()]
    assert list(record.zero_codes) == names and all(0 < share < 1 for share in record.zero_codes.values())
    elements = sum(parameter.numel() for parameter in plan.budget.network().parameters())
    assert record.float_bytes == pytest.approx(8 * elements * (1 - 1 / plan.workers), rel=1e-6)
    bits = 4 if plan.workers == 2 else 6  # each worker's 2-bit codes; codes there, sums of four back
    assert record.sent_bytes == pytest.approx(elements * bits / 8 * (1 - 1 / plan.workers), rel=0.001)
    assert (record.paper or {}) == PAPER.get(row, {})
    assert (tmp_path / row / "report.html").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "page:" in shown and "zero codes" in shown and ("published" in shown) is (row in PAPER)


def test_rows_of_a_network_share_the_float_ones_and_resume_gives_the_run_again(tmp_path, capsys):
    first = smoke(tmp_path, "cifarnet-2")
    assert len(list(tmp_path.glob("float-cifarnet-seed-0-*"))) == 1
    unclipped = smoke(tmp_path, "cifarnet-2-noclip")
    assert len(list(tmp_path.glob("float-*"))) == 1 and unclipped.float_errors == first.float_errors
    assert main(["run", "terngrad", "--row", "cifarnet-2", "--smoke", "--run-dir", str(tmp_path / "cifarnet-2")]) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    assert smoke(tmp_path, "cifarnet-2", "--resume").errors == first.errors
    assert main(["show", str(tmp_path / "cifarnet-2")]) == 0
    assert "TernGrad: cifarnet-2" in capsys.readouterr().out


def test_options_change_the_row():
    plan = plan_of(Config(row=Row.LENET_2, workers=4, clip_factor=3.0, min_numel=99, steps=7, learning_rate=0.5))
    assert (plan.workers, plan.options.clip_factor, plan.options.min_numel) == (4, 3.0, 99)
    assert (plan.budget.settings.steps, plan.budget.settings.learning_rate) == (7, 0.5)
    assert plan_of(Config(row=Row.LENET_2, clip_factor=float("inf"))).options.clip_factor is None
    assert plan_of(Config(row=Row.LENET_2), processes=4).workers == 4


def test_the_control_alone_never_sees_the_test_split(tmp_path, capsys):
    words = ["run", "terngrad", "--row", "demo", "--smoke", "--control-only", "--run-dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert "validation accuracy" in capsys.readouterr().out and not (tmp_path / "run").exists()
    assert list(tmp_path.glob("float-lenet-seed-0-*"))


@pytest.mark.parametrize(
    "options", [["--workers", "3"], ["--steps", "-1"], ["--clip-factor", "nan"], ["--device", "foo"], ["--seeds"]]
)
def test_a_bad_option_is_refused_before_any_work(tmp_path, capsys, options):
    words = [
        "run",
        "terngrad",
        "--row",
        "lenet-2",
        "--data-dir",
        str(tmp_path / "none"),
        "--run-dir",
        str(tmp_path / "r"),
    ]
    assert main([*words, *options]) == 2
    error = capsys.readouterr().err
    assert "none" not in error and not (tmp_path / "r").exists()


def test_the_recorded_command_repeats_the_run():
    config = Config(row=Row.LENET_8, data=DatasetName.MNIST, seeds=(3, 4), clip_factor=2.0, pack=Pack.BASE3, steps=5)
    config = replace(config, wire=Wire.ALLTOALL, resume=True, run_dir=Path("elsewhere"))
    words = shlex.split(command_line(["spokeshave", "run", "terngrad"], config))
    again = parse(Config, words[3:], "spokeshave run terngrad", "")
    assert again == replace(config, resume=False, run_dir=None)


def test_two_processes_give_the_weights_of_two_virtual_workers(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    for folder, start in (("real", command), ("virtual", [sys.executable, "-m"])):
        words = [
            "spokeshave.cli.main",
            "run",
            "terngrad",
            "--row",
            "lenet-2",
            "--smoke",
            "--run-dir",
            tmp_path / folder,
        ]
        done = subprocess.run(
            [*start, *words],
            capture_output=True, text=True, check=False, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("page:") == 1
    real, virtual = (load_checkpoint(tmp_path / folder / "seed-0").part("model") for folder in ("real", "virtual"))
    assert all(torch.equal(real[name], value) for name, value in virtual.items())
    assert json.loads((tmp_path / "real" / "run.json").read_text())["row"] == "lenet-2"


def test_a_number_of_workers_other_than_of_processes_is_refused():
    with pytest.raises(Exception, match="torchrun started 2 processes"):
        plan_of(Config(row=Row.LENET_4, workers=4), processes=2)
