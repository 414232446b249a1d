"""The project's sources, parsed once for all the rules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    return ROOT / "src" / "spokeshave"


@pytest.fixture(scope="session")
def sources(package: Path) -> dict[str, ast.Module]:
    """Path below the package -> its tree; an empty sweep would pass every rule, so it fails here."""
    found = {file.relative_to(package).as_posix(): ast.parse(file.read_text()) for file in package.rglob("*.py")}
    assert len(found) >= 20, f"only {len(found)} source files were found under {package}"
    return found


@pytest.fixture(scope="session")
def documents(root: Path) -> dict[str, str]:
    """Path below the project -> text, of the README and the documentation."""
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {file.relative_to(root).as_posix(): file.read_text() for file in files}
