"""Sparse network file: weights and steps as one safetensors file; code is generated again on loading.

Only nonzeros are stored, with the gaps between them in 16 bits where they fit. Nothing is pickled. What torch runs
cannot be stored that way, so a network with such layers is refused, by their names.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from spokeshave.errors import CheckpointError, UnsupportedLayer
from spokeshave.files import atomic_path, file_error
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.targets.cpu_sparse import network_steps, plane_operations, pooling
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps
from spokeshave.targets.cpu_sparse.sparse_network import Slot, SparseNetwork
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight, places_kind
from spokeshave.targets.cpu_sparse.tuning import TUNE_S
from spokeshave.tensor_digest import digest

_FORMAT = 2
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        network_steps.Convolve,
        network_steps.Multiply,
        network_steps.Chain,
        network_steps.Pool,
        network_steps.Normalize,
        network_steps.Softmax,
        network_steps.Concatenate,
        network_steps.Flatten,
        plane_operations.Rectify,
        plane_operations.Scale,
        plane_operations.PlaneScale,
        plane_operations.Power,
        plane_operations.Combine,
        pooling.Windows,
        Slot,
    )
}
"""What a file may hold; a name that is not here is refused."""


def save_sparse(network: SparseNetwork, path: Path | str) -> Path:
    """Write a sparse network to one file.

    Args:
        network: without layers that torch runs.
        path: of the file; it is written under a temporary name and renamed.

    Returns:
        the path.

    Raises:
        UnsupportedLayer: some layers run in torch.
        FileError: the file cannot be written; what was there before is untouched.
    """
    tensors, metadata = _content(network)
    path = Path(path)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path


def stored_bytes(network: SparseNetwork) -> int:
    """Size of the file that `save_sparse` would write.

    Args:
        network: without layers that torch runs.

    Raises:
        UnsupportedLayer: some layers run in torch.
    """
    tensors, metadata = _content(network)
    return len(save(tensors, metadata=metadata))


def load_sparse(path: Path | str, vectors: VectorSet | None = None, tune_s: float = TUNE_S) -> SparseNetwork:
    """Read a sparse network and compile it for this CPU when it is first called.

    Args:
        path: as given to `save_sparse`, on any machine.
        vectors: set of instructions; the widest that this CPU has if none is given.
        tune_s: seconds that measuring the fastest tiles may take for each layout; what was found before is kept.

    Raises:
        CheckpointError: the file is truncated, was altered or is no sparse network.
        FileError: it cannot be read.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: whoever overwrites or shortens the file later would change what was checked, or end this process.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); copy or export it again") from error
    except OSError as error:
        raise file_error(path, "reading", error) from error
    try:
        header = json.loads(metadata["spokeshave_sparse"])
        version, sha256, facts = header["format"], header["sha256"], header["facts"]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is no sparse network of Spokeshave (its metadata lack {error})") from error
    if version != _FORMAT:
        raise CheckpointError(f"{path} has format {version}, this version reads {_FORMAT}")
    if _digest(tensors, facts) != sha256:
        raise CheckpointError(f"{path} was altered after it was written: it does not have the recorded SHA-256")
    reader = _Reader(tensors)
    try:
        shapes = {name: tuple(shape) for name, shape in facts["shapes"].items()}
        steps = NetworkSteps(reader.whole(facts["steps"]), shapes, facts["inputs"], facts["outputs"], facts["aliases"])
        result, images = reader.whole(facts["result"]), int(facts["images"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its description of the network is damaged ({error!r}); export it again"
        ) from error
    network = SparseNetwork(steps, result, vectors or host_cpu().widest(), tune_s, images)
    network.eval()
    return network


def _content(network: SparseNetwork) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a network's file."""
    if network.fallbacks:
        names = ", ".join(step.layer for step in network.fallbacks)
        raise UnsupportedLayer(
            f"{names}: run in torch, and only native layers can be stored; save the original model's weights and "
            "call to_sparse again after loading"
        )
    writer = _Writer()
    steps = network.network
    facts = {
        "steps": writer.plain(steps.steps),
        "shapes": {name: list(shape) for name, shape in steps.shapes.items()},
        "inputs": steps.inputs,
        "outputs": steps.outputs,
        "aliases": steps.aliases,
        "result": writer.plain(network.result),
        "images": network.images,
    }
    header = {"format": _FORMAT, "sha256": _digest(writer.tensors, facts), "facts": facts}
    return writer.tensors, {"spokeshave_sparse": json.dumps(header)}


def _digest(tensors: dict[str, Tensor], facts: object) -> str:
    text = digest(tensors) + json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def _store(self, array: np.ndarray) -> str:
        name = str(len(self.tensors))
        kinds = {np.dtype(np.uint16): np.int16, np.dtype(np.uint32): np.int32, np.dtype(np.uint64): np.int64}
        self.tensors[name] = torch.from_numpy(array.view(kinds.get(array.dtype, array.dtype)).copy())
        return name

    def plain(self, value: object) -> Any:
        match value:
            case StoredWeight():
                places, values = value.arrays()
                gaps = np.diff(places.astype(np.int64), prepend=0)
                narrow = gaps.max(initial=0) < 1 << 16
                stored = self._store(gaps.astype(np.uint16 if narrow else np.int64))
                return {"weight": list(value.shape), "gaps": stored, "values": self._store(values)}
            case np.ndarray():
                return {"array": self._store(value)}
            case tuple():
                return {"tuple": [self.plain(part) for part in value]}
            case list():
                return [self.plain(part) for part in value]
            case dict():
                return {"dict": [[key, self.plain(part)] for key, part in value.items()]}
        if dataclasses.is_dataclass(value):
            fields = {field.name: self.plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"kind": type(value).__name__, "fields": fields}
        return value


class _Reader:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def whole(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.whole(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "weight" in value:
            gaps = self.tensors[value["gaps"]].numpy()
            shape = tuple(value["weight"])
            kind = places_kind(shape)
            # Sums of 64 bits would take four times the memory of the gaps, which the process would keep.
            places = np.cumsum(gaps.view(np.uint16) if gaps.dtype == np.int16 else gaps.astype(kind), dtype=kind)
            return StoredWeight(shape, places, self.tensors[value["values"]].numpy())
        if "array" in value:
            return self.tensors[value["array"]].numpy()
        if "tuple" in value:
            return tuple(self.whole(part) for part in value["tuple"])
        if "dict" in value:
            return {key: self.whole(part) for key, part in value["dict"]}
        return _KINDS[value["kind"]](**{name: self.whole(part) for name, part in value["fields"].items()})
