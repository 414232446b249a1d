"""The ledger refuses what cannot be traced, and writes nothing that names a machine or a place."""

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

import spokeshave.ledger as ledger
from spokeshave.errors import InvalidArgument, LedgerError
from spokeshave.ledger import describe_machine, describe_versions, find_commit, plain, read_rows, write_row


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit; the package is pretended to be installed outside any repository."""
    installed = tmp_path / "installed"
    installed.mkdir()
    monkeypatch.setattr(ledger, "_PACKAGE", installed)
    root = tmp_path / "clone"
    root.mkdir()
    git(root, "init", "-q")
    (root / "code.py").write_text("a = 1\n")
    git(root, "add", "code.py")
    git(root, "commit", "-qm", "first")
    return root


def test_row_round_trip(repository: Path) -> None:
    results = repository / "results"
    path = write_row(
        "ssl", "lenet-3", {"lr": 0.1}, {"error": 0.9, "ms": [1, 2]}, seeds=[0, 1], wall_s=3, directory=results
    )
    assert path == results / "ssl" / "lenet-3.json"
    (row,) = read_rows("ssl", results)
    assert (row.recipe, row.row, row.numbers, row.config) == (
        "ssl",
        "lenet-3",
        {"error": 0.9, "ms": [1, 2]},
        {"lr": 0.1},
    )
    assert (row.seeds, row.wall_s, row.dirty) == ([0, 1], 3.0, False)
    assert row.commit == git(repository, "rev-parse", "HEAD")
    assert row.versions["torch"] == torch.__version__
    assert row.machine["cores"] >= 1


def test_rows_written_before_do_not_make_the_tree_dirty(repository: Path) -> None:
    results = repository / "results"
    write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=results)
    git(repository, "add", "results")
    git(repository, "commit", "-qm", "row")
    write_row("ssl", "a", {}, {"error": 2}, seeds=[], wall_s=1, directory=results)
    write_row("ssl", "b", {}, {"error": 3}, seeds=[], wall_s=1, directory=results)
    assert [(row.row, row.numbers["error"], row.dirty) for row in read_rows("ssl", results)] == [
        ("a", 2, False),
        ("b", 3, False),
    ]


def test_changed_tree_is_refused_or_marked(repository: Path) -> None:
    (repository / "code.py").write_text("a = 2\n")
    results = repository / "results"
    with pytest.raises(LedgerError, match="differs from commit"):
        write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=results)
    assert not results.exists()
    write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=results, allow_dirty=True)
    assert read_rows("ssl", results)[0].dirty is True


def test_no_repository_is_refused_even_where_dirty_is_allowed(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "results"
    with pytest.raises(LedgerError, match="git repository"):
        write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=outside, allow_dirty=True)
    git(tmp_path, "init", "-q", "empty")
    with pytest.raises(LedgerError, match="git repository"):
        write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=tmp_path / "empty" / "results")


def test_the_repository_is_only_read(repository: Path) -> None:
    index = repository / ".git" / "index"
    os.utime(repository / "code.py", (1, 1))  # git would note the new time in its index
    before = index.read_bytes()
    assert find_commit(repository / "results") == (git(repository, "rev-parse", "HEAD"), False)
    assert index.read_bytes() == before
    git(repository, "status")
    assert index.read_bytes() != before


def test_missing_git_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LedgerError, match="commit"):
        find_commit(repository / "results")


def test_package_in_a_repository_is_the_one_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = repository / "src"
    package.mkdir()
    (package / "ledger.py").write_text("\n")
    git(repository, "add", "src")
    git(repository, "commit", "-qm", "package")
    monkeypatch.setattr(ledger, "_PACKAGE", package)
    assert find_commit(tmp_path / "elsewhere") == (git(repository, "rev-parse", "HEAD"), False)
    (package / "new.py").write_text("\n")
    assert find_commit(tmp_path / "elsewhere")[1] is True


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), {"deep": [1.0, float("-inf")]}, torch.tensor(torch.nan)]
)
def test_numbers_that_are_none_are_refused(repository: Path, number: object) -> None:
    with pytest.raises(LedgerError, match=r"ssl/a: numbers: error.*finite"):
        write_row("ssl", "a", {}, {"error": number}, seeds=[], wall_s=1, directory=repository / "results")


def test_row_without_numbers_is_refused(repository: Path) -> None:
    with pytest.raises(LedgerError, match="at least one number"):
        write_row("ssl", "a", {}, {}, seeds=[], wall_s=1, directory=repository / "results")


@pytest.mark.parametrize(("recipe", "row"), [("../ssl", "a"), ("ssl", "a/b"), ("", "a"), ("ssl", ".hidden")])
def test_names_that_are_no_file_names(repository: Path, recipe: str, row: str) -> None:
    with pytest.raises(InvalidArgument, match="expected letters"):
        write_row(recipe, row, {}, {"error": 1}, seeds=[], wall_s=1, directory=repository / "results")


def test_nothing_in_a_row_names_the_machine_or_a_place(repository: Path) -> None:
    config = {"data_dir": repository, "run_dir": str(repository), "home": "~/runs", "lr": 0.1, "name": "a/b"}
    command = f"spokeshave run ssl --data-dir {repository} --out='~/a' --lr 0.1 --name a/b"
    path = write_row(
        "ssl", "a", config, {"error": 1}, seeds=[], wall_s=1, command=command, directory=repository / "results"
    )
    text = path.read_text()
    assert json.loads(text)["command"] == "spokeshave run ssl --data-dir PATH --out='PATH' --lr 0.1 --name a/b"
    assert json.loads(text)["config"] == {"lr": 0.1, "name": "a/b"}
    assert str(repository) not in text and os.path.expanduser("~") + "/" not in text
    assert socket.gethostname() not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "expected JSON"),
        (lambda text: text.replace('"commit"', '"comit"'), "expected the fields"),
        (lambda text: text.replace('"error": 1', '"error": NaN'), "finite"),
        (lambda text: text.replace('"row": "a"', '"row": "b"'), "holds row"),
        (lambda _: "[]", "expected the fields"),
    ],
)
def test_damaged_rows_are_named(repository: Path, change, message: str) -> None:
    path = write_row("ssl", "a", {}, {"error": 1}, seeds=[], wall_s=1, directory=repository / "results")
    path.write_text(change(path.read_text()))
    with pytest.raises(LedgerError, match=rf"a\.json.*{message}"):
        read_rows("ssl", repository / "results")


def test_recipe_without_rows(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="found none"):
        read_rows("ssl", tmp_path)


def test_plain_turns_every_kind_of_setting_into_json() -> None:
    class Solver(Enum):
        PROXIMAL = "proximal"

    @dataclass(frozen=True)
    class Config:
        solver: Solver = Solver.PROXIMAL
        sizes: tuple[int, ...] = (1, 2)
        data_dir: Path = Path("data")

    value = {"config": Config(), 3: np.float32(0.5), "tensor": torch.tensor(2), "none": None, "flag": True}
    expected = {"config": {"solver": "proximal", "sizes": [1, 2]}, "3": 0.5, "tensor": 2, "none": None, "flag": True}
    assert plain(value, "config") == expected
    with pytest.raises(LedgerError, match="config: f: expected a number"):
        plain({"f": print}, "config")
    with pytest.raises(LedgerError, match="expected one number"):
        plain(torch.zeros(3), "config")


def test_descriptions_are_filled_in() -> None:
    machine = describe_machine()
    assert machine["torch_threads"] == torch.get_num_threads()
    assert all(machine[key] for key in ("cpu", "cores", "os", "python", "architecture"))
    assert {"spokeshave", "torch", "numpy"} <= set(describe_versions())
