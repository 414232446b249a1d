"""What every test and every example in a docstring shares: a cache folder of this run's own."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

# Looked through for examples, it would be imported: kernels for GPUs, which nothing imports where Triton is missing.
collect_ignore = [] if importlib.util.find_spec("triton") else ["src/spokeshave/communication/ternary_triton.py"]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What this machine's user measured and compiled before must not decide what is tested."""
    folder = tmp_path_factory.mktemp("cache") / "spokeshave"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPOKESHAVE_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_cache_again(own_cache: Path) -> Iterator[None]:
    """The same folder for each test: an example in a docstring may change the environment, and not put it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPOKESHAVE_CACHE", str(own_cache))
        yield
