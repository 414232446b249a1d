"""Footprint: what a sparse network takes on disk and in memory, beside the dense one."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import nn

from spokeshave.errors import UnsupportedLayer
from spokeshave.export import safetensors_bytes
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply
from spokeshave.targets.cpu_sparse.sparse_linear import PackedRows
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork
from spokeshave.targets.cpu_sparse.sparse_network_file import stored_bytes
from spokeshave.targets.cpu_sparse.windowed_rows import WindowedRows


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes:
        dense_file: the model as safetensors.
        sparse_file: the sparse network; 0 where it cannot be stored.
        why_no_file: '' where it can.
        dense_weights: parameters and buffers of the model.
        nonzeros: positions and values of layers that no engine holds in an order from which they can be had again.
        arenas: memory for activations, of the engines in use.
        code: generated code of convolutions with its weights, of the engines in use.
        rows: packed rows of linear layers, of the engines in use.
        dense_layers: weights of the layers that torch runs.
    """

    dense_file: int
    sparse_file: int
    why_no_file: str
    dense_weights: int
    nonzeros: int
    arenas: int
    code: int
    rows: int
    dense_layers: int

    @property
    def sparse_weights(self) -> int:
        """All that the sparse network keeps of its weights."""
        return self.nonzeros + self.code + self.rows + self.dense_layers

    def to_dict(self) -> dict[str, object]:
        """The footprint as plain numbers and strings."""
        return asdict(self)


def _engines(network: SparseNetwork) -> Iterator[NativeEngine]:
    for segment in network.segments:
        yield from segment.engines()


def footprint(model: nn.Module, network: SparseNetwork) -> Footprint:
    """Weigh both networks.

    Args:
        model: dense.
        network: sparse; only engines that have run are counted.
    """
    try:
        sparse_file, why = stored_bytes(network), ""
    except UnsupportedLayer as refusal:
        sparse_file, why = 0, str(refusal)
    engines = list(_engines(network))
    # Engines of the same layout share their code, so that each is counted once.
    parts = {id(part): part for engine in engines for part in engine.code.values()}.values()
    weights = [step.weight for step in network.network.steps if isinstance(step, Convolve | Multiply)]
    dense = [piece.step.weight for piece in network.pieces if isinstance(piece, DenseLayer)]
    tensors = [*model.parameters(), *model.buffers()]
    return Footprint(
        len(safetensors_bytes(model)),
        sparse_file,
        why,
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        sum(weight.bytes for weight in weights),
        sum(engine.arena.nbytes + engine.scratch.nbytes for engine in engines),
        sum(part.bytes for part in parts if isinstance(part, CompiledConvolution)),
        sum(part.bytes for part in parts if isinstance(part, PackedRows | WindowedRows)),
        sum(4 * weight.dense().size for weight in dense),
    )
