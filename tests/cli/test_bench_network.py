"""bench-network through the real command line, alone and under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from html_page import Page
from spokeshave.cli.main import main

LENET = "spokeshave.models.lenet:LeNet"
QUICK = ["--input", "1,28,28", "--batch", "2", "--repeats", "1"]
GIVEN = ["--bandwidth", "100mbit", "--latency", "20us", "--workers", "4"]


def test_lenet_on_given_links_gets_a_record_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"exchange": "alltoall", "workers": 4, "bit_per_s": 1e8, "images_per_s": 77.0}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    out = tmp_path / "new" / "out"
    words = ["bench-network", LENET, *QUICK, *GIVEN, "--measured", str(tmp_path / "rows.json"), "--out", str(out)]
    assert main(words) == 0
    record = json.loads((out / "bench.json").read_text())
    assert record["link"] == {"bit_per_s": 1e8, "latency_s": 2e-5} and record["probe"] is None
    assert record["layout"] == {"machines": 4, "devices": 1}
    # LeNet: 431,080 weights, of which the 1080 of biases and conv1 stay floats; 3/4 of them twice for fp32.
    assert record["exchanges"]["fp32"]["bytes_sent"] == pytest.approx(431_080 * 4 * 1.5)
    assert record["exchanges"]["alltoall"]["bytes_sent"] == pytest.approx(0.75 * (430_000 * 6 / 8 + 1080 * 8 + 3 * 8))
    assert record["command"].startswith(f"spokeshave bench-network {LENET}")
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "LeNet over the network" in page.text and "77.0 measured" in page.text
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "report.html"]
    said = capsys.readouterr().out.replace("\n", "")
    assert record["verdict"] in said and f"page: {out / 'report.html'}" in said and "allgather" in said


def test_two_processes_measure_their_link_and_the_first_writes(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "spokeshave.cli.main", "bench-network", LENET, *QUICK, "--workers", "8", "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*torchrun, *words], capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("links: 2 processes over gloo") == 1 and done.stdout.count("page: ") == 1
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["layout"] == {"machines": 4, "devices": 2} and len(record["probe"]["times"]) == 15
    assert record["command"].startswith("torchrun --nnodes 1 --nproc-per-node 2 -m spokeshave.cli.main bench-network")
    assert record["link"]["bit_per_s"] > 1e6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([LENET, *QUICK], "give --bandwidth 1gbit --workers 4"),
        ([LENET, *QUICK, "--bandwidth", "1gbit"], "the links are not known"),
        ([LENET, *QUICK, "--bandwidth", "fast", "--workers", "2"], "expected such as 100mbit"),
        ([LENET, *QUICK, "--bandwidth", "10MB/s", "--workers", "2"], "in bits, eight of a byte"),
        ([LENET, *QUICK, "--bandwidth", "1gbit", "--latency", "soon", "--workers", "2"], "such as 50us"),
        ([LENET, *QUICK, "--bandwidth", "1gbit", "--workers", "0"], "workers: expected at least 1, got 0"),
        ([LENET, *QUICK, "--bandwidth", "1gbit", "--workers", "40000"], "expected 1..32767 workers, got 40000"),
        ([LENET, *QUICK, *GIVEN, "--devices-per-machine", "3"], "4 do not fill machines of 3"),
        ([LENET, *QUICK, *GIVEN, "--overlap", "2"], "overlap: expected a share"),
        ([LENET, *QUICK, *GIVEN, "--min-numel", "-1"], "min-numel: expected at least 0"),
        ([LENET, "--input", "1,28,28", "--batch", "0", *GIVEN], "batch: expected at least 1"),
        ([LENET, "--input", "3,28,28", *GIVEN], "LeNet does not run on a batch of 32 x 3x28x28"),
        ([LENET, "--input", "nonsense", *GIVEN], "such as 1,28,28"),
        ([LENET, *QUICK, *GIVEN, "--device", "abacus"], "device 'abacus' cannot be used here"),
        ([LENET, *QUICK, *GIVEN, "--measured", "nowhere.json"], "nowhere.json"),
        (["spokeshave.models.lenet:LeNett", *QUICK, *GIVEN], "did you mean LeNet"),
        (["torch.nn:Identity", *QUICK, *GIVEN], "no parameters that are trained"),
    ],
)
def test_mistakes_are_answered(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-network", *words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")


def test_given_links_are_refused_where_links_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["bench-network", LENET, *QUICK, *GIVEN]) == 2
    assert "under torchrun the links are measured" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["bench-network", "no.such:model", *QUICK, *GIVEN, "--out", str(tmp_path / "file" / "out")]
    assert main(words) == 2
    assert "choose another path" in capsys.readouterr().err
