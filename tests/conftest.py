"""What every test shares: one fixed seed (printed), no network, the folder of the real data sets."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

SEED = 20161205


def pytest_report_header() -> str:
    data = os.environ.get("SPOKESHAVE_DATA") or "unset: tests on real data are skipped"
    return f"seed of random, numpy and torch before each test: {SEED}; SPOKESHAVE_DATA: {data}"


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(SEED)
    np.random.seed(SEED % 2**32)  # noqa: NPY002 - libraries under test may draw from the global generator
    torch.manual_seed(SEED)


@pytest.fixture
def real_data_dir() -> Path:
    """The folder of the real data sets; a test that asks for it is skipped, by name, where there is none."""
    folder = os.environ.get("SPOKESHAVE_DATA")
    if not folder:
        pytest.skip("SPOKESHAVE_DATA is not set")
    return Path(folder)
