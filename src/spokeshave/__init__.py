"""Spokeshave shapes neural networks for the machine that will run them.

    pull = ss.GroupLasso(model, filters=1e-3, shapes=1e-3)
    pull.attach(optimizer)                      # one line in any training loop
    small, report = ss.shrink(model, example)   # exact: the same function without its zero groups
    print(ss.compare(model, small, example).table())

The public names are those of `__init__.pyi`, the one list, which type checkers read as well. Each is imported when it
is first used, so that `spokeshave --help` and `spokeshave where` answer without waiting for torch.
"""

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

_HOMES: dict[str, str] = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text()).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `ss.measure` the function when the module of the same name is imported after it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
