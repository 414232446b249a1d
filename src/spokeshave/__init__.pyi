"""The public names of Spokeshave: the one list, read by `__init__.py` and by type checkers."""

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
from spokeshave.train_settings import TrainSettings as TrainSettings
from spokeshave.training import evaluate as evaluate
from spokeshave.training import train as train
