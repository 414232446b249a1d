"""What every test shares: one fixed seed (printed), no network, the folder of the real data sets."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from small_road import PLAN, few_digits
from spokeshave.data import Splits
from spokeshave.shaping import Shaped, shape

SEED = 20161205
NO_DATA = "SPOKESHAVE_DATA is not set"


def pytest_report_header() -> str:
    data = os.environ.get("SPOKESHAVE_DATA") or "unset: tests on real data are skipped"
    return f"seed of random, numpy and torch before each test: {SEED}; SPOKESHAVE_DATA: {data}"


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(SEED)
    np.random.seed(SEED % 2**32)  # noqa: NPY002 - libraries under test may draw from the global generator
    torch.manual_seed(SEED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every test that was skipped for lack of data: a green run must not pass for one on real data."""
    skipped = [report.nodeid for report in terminalreporter.stats.get("skipped", []) if NO_DATA in str(report.longrepr)]
    if skipped:
        terminalreporter.section(f"{len(skipped)} tests on real data were NOT run: {NO_DATA}", yellow=True)
        for name in sorted(skipped):
            terminalreporter.line(name)


@pytest.fixture
def real_data_dir() -> Path:
    """The folder of the real data sets; a test that asks for it is skipped, by name, where there is none."""
    folder = os.environ.get("SPOKESHAVE_DATA")
    if not folder:
        pytest.skip(NO_DATA)
    return Path(folder)


@pytest.fixture(scope="session")
def splits() -> Splits:
    return few_digits()


@pytest.fixture(scope="session")
def shaped(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shaped, Path]:
    """What seed 3 of the road on a small network gave, and the folder of its run; `shape` ran once."""
    run_dir = tmp_path_factory.mktemp("shaped") / "tiny-1"
    return shape(PLAN, splits, 3, run_dir / "seed-3"), run_dir
