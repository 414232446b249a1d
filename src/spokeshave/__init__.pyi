"""The public names of Spokeshave: the one list, read by `__init__.py` and by type checkers."""

from spokeshave.export import export as export
from spokeshave.export import load_safetensors as load_safetensors
from spokeshave.measure import compare as compare
from spokeshave.measure import measure as measure
from spokeshave.regularizers import Freeze as Freeze
from spokeshave.regularizers import Frozen as Frozen
from spokeshave.regularizers import GroupLasso as GroupLasso
from spokeshave.regularizers import Guide as Guide
from spokeshave.regularizers import GuidedL1 as GuidedL1
from spokeshave.regularizers import L1Solver as L1Solver
from spokeshave.regularizers import MagnitudeSchedule as MagnitudeSchedule
from spokeshave.regularizers import NetworkSurgery as NetworkSurgery
from spokeshave.regularizers import Solver as Solver
from spokeshave.rewrites import prune as prune
from spokeshave.rewrites import shrink as shrink
from spokeshave.rewrites import sparse_layers as sparse_layers
from spokeshave.rewrites import to_sparse as to_sparse
from spokeshave.rewrites.to_sparse import LinearValues as LinearValues
from spokeshave.structures.magnitude_mask import Scope as Scope
from spokeshave.structures.roofline_model import MachineRates as MachineRates
from spokeshave.structures.sparsity import sparsity as sparsity
from spokeshave.targets.cpu_sparse.sparse_network_file import load_sparse as load_sparse
from spokeshave.targets.cpu_sparse.sparse_network_file import save_sparse as save_sparse
from spokeshave.train_settings import TrainSettings as TrainSettings
from spokeshave.training import evaluate as evaluate
from spokeshave.training import train as train
