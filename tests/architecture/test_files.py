"""Rules that a file can be held to: its name, its length, its header, its test, what it may not mention."""

import ast
import re
from pathlib import Path

ROLE_WORDS = {"base", "core", "utils", "config", "layer", "api", "helpers", "common", "misc", "types"}
LONGEST = 400
UNTESTED_BY_NAME: dict[str, str] = {
    "errors.py": "only declares classes; every test of an error imports it",
    "cli/compress.py": "parses options for recipes/compression.py; driven whole in tests/recipes/test_compression.py",
    "communication/packing_loops.py": "run against the definition in tests/communication/test_ternary_packing.py",
    "communication/ternary_loops.py": "likewise",
    "targets/truenorth/bit_plane_loops.py": "run in test_bit_planes.py and test_bit_plane_packing.py",
    "communication/terngrad_state.py": "made, saved, bound and refused in tests/communication/test_terngrad.py",
    "evaluation.py": "held against a loop in tests/test_training.py",
    "training_objective.py": "a protocol and the cross entropy, which tests/test_training.py trains with",
    "recipes/adaptation_card.py": "the card of recipes/adaptation.py, whose code its test runs",
    "recipes/adaptation_figures.py": "figures of recipes/adaptation.py, checked by hand in its test",
    "recipes/adaptation_forms.py": "forms that recipes/adaptation.py adapts, each run in its test",
    "recipes/adaptation_rows.py": "the plans of recipes/adaptation.py, run in its test",
    "recipes/force_rows.py": "the plans of recipes/force.py, run in its test",
    "recipes/group_scissor_rows.py": "the plans of recipes/group_scissor.py, run in its test",
    "recipes/guided_sparsity_rows.py": "the plans of recipes/guided_sparsity.py, run in its test",
    "recipes/mat_arms.py": "the arms of recipes/mat.py, each run in its test",
    "recipes/mat_figures.py": "tables and figures of recipes/mat.py, checked by hand in its test",
    "recipes/mat_judging.py": "what recipes/mat.py measures and keeps, run and damaged in its test",
    "recipes/mat_rows.py": "the plans of recipes/mat.py, run in its test",
    "recipes/one_level_arms.py": "the arms of recipes/one_level.py, each run in its test",
    "recipes/one_level_rows.py": "the plans of recipes/one_level.py, run in its test",
    "recipes/truenorth_arms.py": "the arms of recipes/truenorth.py, each run in its test",
    "recipes/truenorth_rows.py": "the plans of recipes/truenorth.py, run in its test",
    "recipes/poisoning_arms.py": "the arms of recipes/poisoning.py, each run in its test",
    "recipes/poisoning_rows.py": "the plans of recipes/poisoning.py, run in its test",
    "recipes/ssl_rows.py": "the plans of recipes/ssl.py, each run in tests/recipes/test_ssl.py",
    "recipes/terngrad_rows.py": "the plans of recipes/terngrad.py, each run in tests/recipes/test_terngrad.py",
    "batch_transform.py": "only declares a protocol; tests/threats/test_multi_strength.py trains with one",
    "gradient_exchange.py": "only declares a protocol; tests/test_training.py trains with an exchange of its own",
}
"""Source file -> why no test file carries its name."""

MACHINE_PATHS = re.compile(r"(?<![\w.])/(wor[k]|roo[t]|home/\w+|Users/\w+|tmp/team)/")
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|NotImplemented[E]rror)\b")


def test_no_file_is_named_by_its_role(sources: dict[str, ast.Module]) -> None:
    assert not [path for path in sources if Path(path).stem in ROLE_WORDS]


def test_at_most_two_folders_deep(sources: dict[str, ast.Module]) -> None:
    assert max(path.count("/") for path in sources) <= 2


def test_files_stay_short(package: Path, sources: dict[str, ast.Module]) -> None:
    lines = {path: len((package / path).read_text().splitlines()) for path in sources}
    assert not {path: count for path, count in lines.items() if count > LONGEST}


def test_every_file_with_code_says_what_it_is(sources: dict[str, ast.Module]) -> None:
    assert not [path for path, tree in sources.items() if tree.body and not ast.get_docstring(tree)]


def test_no_postponed_annotations(sources: dict[str, ast.Module]) -> None:
    """With them the shapes in signatures could not be checked in the tests."""
    postponed = [
        path
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert not postponed


def test_only_errors_defines_exceptions(sources: dict[str, ast.Module]) -> None:
    raised = re.compile(r"(Exception|Error|Warning)$")
    elsewhere = [
        f"{path}: {node.name}"
        for path, tree in sources.items()
        if path != "errors.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(raised.search(ast.unparse(base)) for base in node.bases)
    ]
    assert not elsewhere


def test_every_source_file_has_a_test_file_of_its_name(root: Path, sources: dict[str, ast.Module]) -> None:
    missing = [
        path
        for path in sources
        if Path(path).stem not in ("__init__", "__main__") and path not in UNTESTED_BY_NAME
        if not (root / "tests" / Path(path).with_name(f"test_{Path(path).name}")).is_file()
    ]
    assert not missing, f"write tests/<folder>/test_<stem>.py for {sorted(missing)}"


def test_exemptions_are_needed(root: Path, sources: dict[str, ast.Module]) -> None:
    for path in UNTESTED_BY_NAME:
        assert path in sources
        assert not (root / "tests" / Path(path).with_name(f"test_{Path(path).name}")).is_file()


def test_nothing_mentions_a_path_of_one_machine_or_is_unfinished(root: Path) -> None:
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    files = [file for folder in folders for file in (root / folder).rglob("*") if file.suffix in (".py", ".md", ".j2")]
    files += [root / name for name in ("README.md", "Makefile", "pyproject.toml", "mkdocs.yml", ".ci/run")]
    assert len(files) > 40
    found = [
        f"{file.relative_to(root)}: {match.group()}"
        for file in files
        for match in [*MACHINE_PATHS.finditer(file.read_text()), *UNFINISHED.finditer(file.read_text())]
    ]
    assert not found, "\n".join(found)
