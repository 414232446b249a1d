"""The SSL recipe through the real command line: rows run, meet their counts, resume, and refuse what is wrong."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spokeshave.cli.main import main
from spokeshave.cli.run import parse
from spokeshave.data import DatasetName
from spokeshave.recipes.ssl import PAPER, Config, Row, plan_of, run
from spokeshave.recipes.ssl_rows import ROWS
from spokeshave.report.run_record import RunRecord
from spokeshave.road import small_digits
from spokeshave.run_output import command_line


def smoke(tmp_path: Path, row: str, *options: str) -> RunRecord:
    assert main(["run", "ssl", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]) == 0
    return RunRecord.load(tmp_path / row)


def test_every_row_has_a_plan_and_every_paper_row_a_name():
    names = {row.value for row in Row}
    assert set(ROWS) == names and set(PAPER) == names - {"demo"} and len(names) >= 11


@pytest.mark.parametrize("row", ["lenet-3", "lenet-5", "mlp-3", "convnet-2", "resnet20-14"])
def test_a_smoke_run_meets_the_rows_counts_and_is_exact(tmp_path, row, capsys):
    record = smoke(tmp_path, row)
    assert record.shrink is not None and record.shrink["max_relative_error"] < 1e-5
    layers = {layer["name"]: layer for layer in record.shrink["layers"]}
    zero_rows = {name: int((~matrix.any(1)).sum()) for name, matrix in record.weights.items()}
    zero_columns = {name: int((~matrix.any(0)).sum()) for name, matrix in record.weights.items()}
    if row == "lenet-3":
        assert (zero_rows["conv1"], zero_rows["conv2"], zero_columns["conv2"]) == (17, 38, 17 * 25)
        assert layers["conv1"]["filters_kept"] == 3 and layers["conv2"]["filters_kept"] == 12
        assert layers["conv2"]["channels_kept"] == 3 and layers["ip1"]["channels_kept"] == 12 * 16
    if row == "lenet-5":
        assert (25 - zero_columns["conv1"], 500 - zero_columns["conv2"]) == (7, 14)
    if row == "mlp-3":
        kept = [784 - zero_columns["ip1"], 500 - zero_rows["ip1"], 300 - zero_rows["ip2"]]
        assert all(k <= wanted for k, wanted in zip(kept, (434, 174, 78), strict=True))
        assert layers["ip2"]["channels_kept"] <= 174 and layers["ip3"]["channels_kept"] <= 78
    if row == "convnet-2":
        assert [zero_rows[f"conv{i}"] for i in (1, 2, 3)] == [16, 9, 1]
        assert (zero_columns["conv2"], zero_columns["conv3"]) == (475, 281)
        # None of the columns kept reads a filter that is gone.
        assert [layers[f"conv{i}"]["columns_kept"] for i in (1, 2, 3)] == [75, 325, 519]
    if row == "resnet20-14":
        dead = [name for name in record.weights if name.startswith("group") and not record.weights[name].any()]
        assert len(dead) == 6
        assert set(dead) <= set(record.shrink["removed_branches"])
    assert record.final.measurement.flops < record.baseline.measurement.flops
    assert (tmp_path / row / "report.html").stat().st_size > 10_000
    assert "page:" in capsys.readouterr().out


def test_a_smoke_run_in_which_nothing_became_zero_ends_with_a_page_that_says_so(tmp_path, capsys):
    record = smoke(tmp_path, "demo", "--strength", "1e-9")
    assert record.final.measurement.parameters == record.baseline.measurement.parameters
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    for text in (page, capsys.readouterr().out.replace("\n", " ")):
        assert "nothing was removed" in text and "The smaller network gives" not in text


def test_the_small_network_reads_back_and_is_the_one_reported(tmp_path):
    record = smoke(tmp_path, "lenet-3", "--seeds", "0", "1")
    assert record.seeds == [0, 1] and record.final.error_spread is not None
    program = torch.export.load(tmp_path / "lenet-3" / "small.pt2").module()
    test = small_digits(plan_of(Config(row=Row.LENET_3))[1]).test
    hits = (program(test.images.float() / 256).argmax(1) == test.labels).float().mean().item()
    errors = [point["error"] for point in record.points]
    assert 1 - hits == pytest.approx(errors[0]) and record.final.error == pytest.approx(sum(errors) / 2)


def test_a_finished_run_is_kept_and_resume_gives_it_again(tmp_path, capsys):
    first = smoke(tmp_path, "lenet-5")
    assert main(["run", "ssl", "--row", "lenet-5", "--smoke", "--run-dir", str(tmp_path / "lenet-5")]) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    again = smoke(tmp_path, "lenet-5", "--resume")
    assert again.final.error == first.final.error
    assert all(torch.equal(again.weights[n], m) for n, m in first.weights.items())


def test_the_recorded_command_repeats_the_run():
    config = Config(row=Row.MLP_2, data=DatasetName.MNIST, seeds=(3, 4), strength=0.5, ssl_epochs=2, smoke=True)
    config = replace(config, resume=True, run_dir=Path("elsewhere"))
    words = shlex.split(command_line(["spokeshave", "run", "ssl"], config))
    assert words[:3] == ["spokeshave", "run", "ssl"]
    again = parse(Config, words[3:], "spokeshave run ssl", "")
    assert again == replace(config, resume=False, run_dir=None)


@pytest.mark.parametrize(
    "options", [["--strength", "nan"], ["--strength", "-1"], ["--ssl-epochs", "-3"], ["--device", "foo"], ["--seeds"]]
)
def test_a_bad_option_is_refused_before_any_work(tmp_path, capsys, options):
    words = ["run", "ssl", "--row", "lenet-5", "--data-dir", str(tmp_path / "none"), "--run-dir", str(tmp_path / "r")]
    assert main([*words, *options]) == 2
    error = capsys.readouterr().err
    assert "none" not in error and not (tmp_path / "r").exists()


def test_pull_strength_zero_still_meets_the_counts_by_truncation(tmp_path):
    record = run(Config(row=Row.LENET_5, smoke=True, strength=0.0 + 1e-9, run_dir=tmp_path / "run"))
    assert record["shrink"]["layers"][0]["columns_kept"] <= 7


def test_two_processes_train_a_row_together(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "spokeshave.cli.main",
    ]
    done = subprocess.run(
        [*command, "run", "ssl", "--row", "lenet-5", "--smoke", "--run-dir", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["row"] == "lenet-5"
    assert done.stdout.count("page:") == 1
