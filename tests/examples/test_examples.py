"""Each example runs as a reader would run it, and its small network does what the large one does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {"plain_loop.py": "torch", "lightning_loop.py": "lightning", "accelerate_loop.py": "accelerate"}


def test_every_example_is_run_here() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(NEEDS)


def test_examples_stay_short() -> None:
    assert all(len(file.read_text().splitlines()) <= 70 for file in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NEEDS)
def test_example_shrinks_the_network_and_keeps_its_accuracy(name: str) -> None:
    pytest.importorskip(NEEDS[name])
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:spokeshave", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    shown = run.stdout.splitlines()[-1]
    before, after = (float(number) for number in re.findall(r"([\d.]+)%", shown))
    assert before == after > 90.0
