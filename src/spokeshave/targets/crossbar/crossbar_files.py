"""Crossbar files: a mapped network as `crossbars.json` and `crossbars.npz`, which other tools read.

The JSON file says what the arrays are, layer by layer; docs/crossbar.md describes both. Nothing is pickled, and what is
read is checked: geometry, shapes, ranges, and that the arrays are those that the JSON file was written with.
Departs from the papers: neither has a file format.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.files import atomic_write, file_error
from spokeshave.structures.tiles import TileGrid, Tiling
from spokeshave.targets.crossbar.converters import Converters
from spokeshave.targets.crossbar.crossbar_layer import CrossbarLayer
from spokeshave.targets.crossbar.layer_product import LayerProduct
from spokeshave.targets.crossbar.memristor import Memristor

FORMAT, VERSION = "spokeshave crossbars", 1
JSON_FILE, ARRAYS_FILE = "crossbars.json", "crossbars.npz"
_TYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Crossbars:
    """What the files of a mapped network hold.

    Attributes:
        size: most input and output wires of a crossbar.
        tiling: how matrices were cut.
        layers: each layer's crossbars, by its name in the network.
        report: plain numbers of the mapping, as `MapReport.to_dict` gives them.
    """

    size: tuple[int, int]
    tiling: Tiling
    layers: Mapping[str, CrossbarLayer]
    report: Mapping[str, Any]


def write_crossbars(crossbars: Crossbars, folder: Path | str) -> Path:
    """Write both files; each is whole or absent.

    Args:
        crossbars: of a network.
        folder: for the files; made where it is missing.

    Returns:
        the folder.

    Raises:
        FileError: where they cannot be written.
    """
    folder, arrays, entries = Path(folder), {}, []
    for name, layer in crossbars.layers.items():
        key = name or "(model)"
        unit = layer.device.g_max_s
        for kind, tensor in (("g_plus", layer.g_plus), ("g_minus", layer.g_minus)):
            arrays[f"{key}.{kind}"] = tensor.detach().double().cpu().numpy() * unit
        arrays[f"{key}.used"] = layer.used.cpu().numpy()
        if layer.bias is not None:
            arrays[f"{key}.bias"] = layer.bias.detach().double().cpu().numpy()
        entries.append(
            {
                "name": name,
                "arrays": key,
                "kind": layer.product.kind,
                "product": dataclasses.asdict(layer.product),
                "grid": dataclasses.asdict(layer.grid) | {"rows": layer.grid.rows, "columns": layer.grid.columns},
                "weight_per_siemens": float(layer.scale) / unit,
                "has_bias": layer.bias is not None,
                "dtype": str(layer.g_plus.dtype).removeprefix("torch."),
                "input_range": float(layer.input_range),
                "tile_range": float(layer.tile_range),
                "device": _plain(layer.device),
                "converters": _plain(layer.converters),
                "wire_resistance_ohm": layer.wire_resistance_ohm,
                "read_noise_seed": layer.seed,
            }
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    described = {
        "format": FORMAT,
        "version": VERSION,
        "size": list(crossbars.size),
        "tiling": crossbars.tiling.value,
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
        "layers": entries,
        "report": dict(crossbars.report),
    }
    atomic_write(folder / ARRAYS_FILE, content)
    atomic_write(folder / JSON_FILE, json.dumps(described, indent=1) + "\n")
    return folder


def read_crossbars(folder: Path | str, changed: bool = False) -> Crossbars:
    """Read both files and check them.

    Args:
        folder: that `write_crossbars` wrote.
        changed: take arrays that were changed after they were written, such as measured conductances.

    Raises:
        DataError: a file is missing, truncated, of another version, or holds what does not belong together.
    """
    folder = Path(folder)
    path = folder / JSON_FILE
    try:
        described = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, got: {error}; export the network again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise DataError(f"{path}: expected the format {FORMAT!r}; is it of another program?")
    if described.get("version") != VERSION:
        raise DataError(f"{path}: expected version {VERSION}, got {described.get('version')!r}; export it again")
    content = _bytes(folder / ARRAYS_FILE)
    if not changed and hashlib.sha256(content).hexdigest() != described.get("arrays_sha256"):
        raise DataError(
            f"{folder / ARRAYS_FILE}: it is damaged, or not what {JSON_FILE} was written with: export the network "
            "again, or read it with changed=True where you changed it on purpose"
        )
    try:
        with _opened(content, folder / ARRAYS_FILE) as arrays:
            layers = {entry["name"]: _layer(entry, arrays, folder / ARRAYS_FILE) for entry in described["layers"]}
        size, tiling = tuple(map(int, described["size"])), Tiling(described["tiling"])
        height, width = size
        if min(size) < 1:
            raise InvalidArgument(f"size: expected at least 1, got {size}")
        return Crossbars((height, width), tiling, layers, dict(described["report"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: its description of the crossbars is damaged ({error!r}); export it again") from error


def _layer(entry: Mapping[str, Any], arrays: NpzFile, path: Path) -> CrossbarLayer:
    product = _typed(LayerProduct, entry["product"])
    grid = TileGrid(*(int(entry["grid"][field.name]) for field in dataclasses.fields(TileGrid)))
    device, converters = _typed(Memristor, entry["device"]), _typed(Converters, entry["converters"])
    if (grid.inputs, grid.outputs) != (product.inputs, product.outputs) or min(grid.tile_inputs, grid.tile_outputs) < 1:
        raise InvalidArgument(f"{entry['name']}: the grid does not hold the matrix")
    key, tiles = entry["arrays"], (product.groups, grid.rows, grid.columns, grid.tile_inputs, grid.tile_outputs)
    dtype = _TYPES[entry["dtype"]]
    plus, minus = (
        _array(arrays, f"{key}.{kind}", tiles, path, non_negative=True) / device.g_max_s
        for kind in ("g_plus", "g_minus")
    )
    used = _array(arrays, f"{key}.used", tiles, path) != 0
    bias = _array(arrays, f"{key}.bias", (product.weight_shape[0],), path) if entry["has_bias"] else None
    numbers = {
        name: float(entry[name]) for name in ("weight_per_siemens", "input_range", "tile_range", "wire_resistance_ohm")
    }
    if not all(np.isfinite(number) and number >= 0 for number in numbers.values()):
        raise InvalidArgument(f"{entry['name']}: expected finite numbers of 0 or more, got {numbers}")
    layer = CrossbarLayer(
        product, grid, torch.from_numpy(plus).to(dtype), torch.from_numpy(minus).to(dtype),
        numbers["weight_per_siemens"] * device.g_max_s, None if bias is None else torch.from_numpy(bias).to(dtype),
        used=torch.from_numpy(used), device=device, converters=converters,
        wire_resistance_ohm=numbers["wire_resistance_ohm"], seed=int(entry["read_noise_seed"]), name=entry["name"],
    )  # fmt: skip
    layer.input_range.fill_(numbers["input_range"])
    layer.tile_range.fill_(numbers["tile_range"])
    return layer


def _opened(content: bytes, path: Path) -> NpzFile:
    try:
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a whole .npz file, got: {error}; export it again") from error
    if not isinstance(arrays, NpzFile):
        raise DataError(f"{path}: expected an .npz file with several arrays; export it again")
    return arrays


def _array(arrays: NpzFile, key: str, shape: tuple[int, ...], path: Path, non_negative: bool = False) -> np.ndarray:
    try:
        array = arrays[key]
    except (KeyError, ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the array {key} is missing or damaged ({error}); export it again") from error
    if array.shape != shape or array.dtype.kind not in "fb":
        raise DataError(f"{path}: {key}: expected numbers of shape {shape}, got {array.dtype} of {array.shape}")
    if not np.isfinite(array).all() or (non_negative and (array < 0).any()):
        raise DataError(f"{path}: {key}: expected finite numbers{' of 0 or more' * non_negative}, got others")
    return array


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing: name the folder that a mapped network was exported to")
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(path, "reading", error) from error


def _plain(settings: Any) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in dataclasses.asdict(settings).items()
    }


def _typed(kind: type[Stored], content: Mapping[str, Any]) -> Stored:
    """A dataclass of plain values, from what JSON made of it."""
    hints, made = get_type_hints(kind), {}
    for name, value in content.items():
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, Enum):
            value = hint(value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)
