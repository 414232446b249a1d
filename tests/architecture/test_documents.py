"""What the README and the documentation say is there is there, and what is there they name."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import spokeshave
from spokeshave.cli.main import SUBCOMMANDS
from spokeshave.cli.where import map_rows

UNMAPPED: dict[str, str] = {
    "cli": "the command line is described by its own page",
    "errors.py": "plumbing",
    "files.py": "plumbing",
    "optional.py": "plumbing",
}
"""First part of a path -> why the README's map leaves it out."""

SOURCE_PATH = re.compile(r"`(?:src/spokeshave/)?((?:[a-z_]+/)+[a-z_0-9]+\.py)`")


def test_every_row_of_the_map_leads_to_files_that_exist(root: Path, package: Path) -> None:
    rows = map_rows((root / "README.md").read_text())
    assert len(rows) >= 20
    broken = [f"{idea}: {file}" for idea, file, _ in rows if not (package / file).is_file()]
    broken += [f"{idea}: {page}" for idea, _, page in rows if not (root / page.split("#")[0]).is_file()]
    assert not broken, "\n".join(broken)


def test_every_source_file_with_an_idea_is_on_the_map(root: Path, sources: dict[str, ast.Module]) -> None:
    mapped = {file for _, file, _ in map_rows((root / "README.md").read_text())}
    ideas = {path for path in sources if path.split("/")[0] not in UNMAPPED and Path(path).stem != "__init__"}
    assert not ideas - mapped, f"give each a row in the README's map: {sorted(ideas - mapped)}"


def test_source_files_named_in_the_documents_exist(root: Path, package: Path, documents: dict[str, str]) -> None:
    named = [(document, path) for document, text in documents.items() for path in SOURCE_PATH.findall(text)]
    assert len(named) > 20
    gone = [pair for pair in named if not (package / pair[1]).is_file() and not (root / pair[1]).is_file()]
    assert not gone


def test_every_public_name_is_documented(documents: dict[str, str]) -> None:
    text = "\n".join(documents.values())
    public = [name for name in spokeshave.__all__ if not name.startswith("_")]
    assert public
    assert not [name for name in public if not re.search(rf"\b(?:ss|spokeshave)\.{name}\b", text)]


def test_every_subcommand_is_documented(documents: dict[str, str]) -> None:
    assert not [name for name in SUBCOMMANDS if f"spokeshave {name}" not in documents["docs/cli.md"]]


def test_tables_of_results_are_what_the_ledger_says(root: Path) -> None:
    script = root / "benchmarks" / "results_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run python benchmarks/results_table.py: {done.stdout}{done.stderr}"
