"""Rewrites: take a model and an example, return a new model and a report of what changed."""

from spokeshave.rewrites.constant_input import ConstantInput as ConstantInput
from spokeshave.rewrites.constant_input import PositionBias as PositionBias
from spokeshave.rewrites.delete_connections import DeletionReport as DeletionReport
from spokeshave.rewrites.delete_connections import delete_connections as delete_connections
from spokeshave.rewrites.low_rank import low_rank as low_rank
from spokeshave.rewrites.low_rank_report import LowRankLayer as LowRankLayer
from spokeshave.rewrites.low_rank_report import LowRankReport as LowRankReport
from spokeshave.rewrites.prune import PrunedWeight as PrunedWeight
from spokeshave.rewrites.prune import PruneReport as PruneReport
from spokeshave.rewrites.prune import prune as prune
from spokeshave.rewrites.shrink import shrink as shrink
from spokeshave.rewrites.shrink_report import LayerChange as LayerChange
from spokeshave.rewrites.shrink_report import ShrinkReport as ShrinkReport
from spokeshave.rewrites.sparse_layers import SparseConv2d as SparseConv2d
from spokeshave.rewrites.sparse_layers import SparseLinear as SparseLinear
from spokeshave.rewrites.sparse_layers import sparse_layers as sparse_layers
from spokeshave.rewrites.squeezed_convolution import CroppedConv2d as CroppedConv2d
from spokeshave.rewrites.squeezed_convolution import SqueezedConv2d as SqueezedConv2d
from spokeshave.rewrites.squeezed_linear import SqueezedLinear as SqueezedLinear
from spokeshave.rewrites.to_sparse import LinearValues as LinearValues
from spokeshave.rewrites.to_sparse import SparseLayer as SparseLayer
from spokeshave.rewrites.to_sparse import SparseReport as SparseReport
from spokeshave.rewrites.to_sparse import to_sparse as to_sparse
