"""Optional dependencies: what is installed, and which extra brings what is not."""

import importlib
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from spokeshave.errors import MissingExtra

EXTRAS: dict[str, str] = {
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "tensorboard": "tensorboard",
    "foolbox": "attacks",
    "pyautoattack": "attacks",
    "lightning": "examples",
    "accelerate": "examples",
    "torch_pruning": "benchmarks",
}


@cache
def available(module: str) -> bool:
    """Say whether a top-level module can be imported, without importing it."""
    return find_spec(module) is not None


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        module: a key of `EXTRAS`.
        purpose: what it is needed for, as in "exporting to ONNX".

    Raises:
        MissingExtra: where it is not installed.
    """
    if not available(module):
        raise MissingExtra(f"{purpose} needs {module}: pip install 'spokeshave[{EXTRAS[module]}]'")
    return importlib.import_module(module)
