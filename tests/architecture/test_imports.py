"""Imports go one way, and `import spokeshave` brings nothing that is optional or heavy beside torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

from spokeshave.optional import EXTRAS

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "files", "optional", "processes", "tensor_digest", "user_cache"})
    | {"worker_processes", "large_blocks", "kept_results"},
    frozenset({"structures", "data", "models", "timing", "jit"}),
    frozenset({"regularizers", "rewrites", "measure", "dense_runtimes", "export", "ledger", "targets", "communication"})
    | {"threats"},
    frozenset({"cpu_benchmark"}),
    frozenset(
        {"checkpoints", "divergence", "progress", "gradient_exchange", "train_settings", "training", "tensorboard_log"}
    )
    | {"batch_transform", "report", "evaluation", "training_objective"},
    frozenset({"shaping", "run_output", "road", "strength_search", "equal_budget", "exchange_output"})
    | {"arms_course", "arms_output", "float_networks"}
    | {"member_course", "parallel_training", "stacked_training", "adaptation"},
    frozenset({"recipes"}),
    frozenset({"cli"}),
)
"""First part of a module's path below the package, lowest layer first; a part imports its own layer or lower ones."""

HEAVY = {"tyro", "jinja2", "pooch", "requests", "sklearn"}
"""Always installed, but each is needed by one part only: imported inside the function that uses it."""


def part_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imported_parts(tree: ast.Module) -> set[str]:
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: import absolutely, so that a search for the module finds it"
            if node.module == "spokeshave":
                parts |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("spokeshave."):
                parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {
                (alias.name.split(".") + [""])[1] for alias in node.names if alias.name.split(".")[0] == "spokeshave"
            }
    return parts


def graph(sources: dict[str, ast.Module]) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {}
    for path, tree in sources.items():
        if path != "__init__.py":
            parts.setdefault(part_of(path), set()).update(imported_parts(tree))
    return parts


def test_every_part_of_the_package_has_a_layer(sources: dict[str, ast.Module]) -> None:
    unknown = set(graph(sources)) - frozenset().union(*LAYERS)
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS"


def test_imports_go_down_only(sources: dict[str, ast.Module]) -> None:
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    upward = [
        f"{path} imports {imported}"
        for path, tree in sources.items()
        if path != "__init__.py"
        for imported in imported_parts(tree)
        if level.get(imported, len(LAYERS)) > level[part_of(path)]
    ]
    assert not upward, "\n".join(upward)


def test_no_two_parts_import_each_other(sources: dict[str, ast.Module]) -> None:
    others = {part: imported - {part} for part, imported in graph(sources).items()}
    order = list(TopologicalSorter(others).static_order())  # raises CycleError, which names the cycle
    assert order.index("errors") < order.index("cli")


def test_importing_spokeshave_brings_nothing_optional() -> None:
    script = "import sys, spokeshave\nfor name in spokeshave.__all__: getattr(spokeshave, name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "torch" in loaded
    assert not loaded & (set(EXTRAS) | HEAVY)
