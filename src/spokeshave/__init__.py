"""Spokeshave shapes neural networks for the machine that will run them.

    pull = ss.GroupLasso(model, filters=1e-3, shapes=1e-3)
    pull.attach(optimizer)                      # one line in any training loop
    small, report = ss.shrink(model, example)   # exact: the same function without its zero groups
    print(ss.compare(model, small, example).table())
"""

from spokeshave.export import export as export
from spokeshave.export import load_safetensors as load_safetensors
from spokeshave.measure import compare as compare
from spokeshave.measure import measure as measure
from spokeshave.regularizers import Freeze as Freeze
from spokeshave.regularizers import Frozen as Frozen
from spokeshave.regularizers import GroupLasso as GroupLasso
from spokeshave.regularizers import Solver as Solver
from spokeshave.rewrites import shrink as shrink
from spokeshave.structures.sparsity import sparsity as sparsity
from spokeshave.training import TrainSettings as TrainSettings
from spokeshave.training import evaluate as evaluate
from spokeshave.training import train as train

__all__ = [
    "Freeze",
    "Frozen",
    "GroupLasso",
    "Solver",
    "TrainSettings",
    "compare",
    "evaluate",
    "export",
    "load_safetensors",
    "measure",
    "shrink",
    "sparsity",
    "train",
]
