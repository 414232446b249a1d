"""Networks as files that other programs run: ONNX, torch.export (.pt2), safetensors.

Every exported program is loaded again and must give the model's outputs on random probes, with another batch size than
it was traced with. Paths of this machine, which torch notes in a program for debugging, are taken out.
"""

import copy
import inspect
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from spokeshave.errors import CheckpointError, InexactRewrite, InvalidArgument, UnsupportedLayer
from spokeshave.files import atomic_path, atomic_write
from spokeshave.measure import Example
from spokeshave.optional import available, require
from spokeshave.timing import evaluating

_TRACED_BATCH = 2
"""torch.export takes a batch of 1 for a constant, so the example is repeated."""
_PROBED_BATCH = 3
_METADATA_KEY = "spokeshave"


def export(model: nn.Module, path: Path | str, example: Example | None = None, tolerance: float = 1e-4) -> Path:
    """Write a model to a file, in the form that the file's suffix names.

    Args:
        model: any module that `torch.export` can trace (.onnx, .pt2), or any module at all (.safetensors: the weights
            and a description; read it with `load_safetensors`). It is exported in eval mode and left as it was.
        path: file to write, ending in .onnx, .pt2 or .safetensors; an earlier one is replaced as a whole.
        example: input of the model, a tensor or a tuple of tensors, batch first; needed for .onnx and .pt2. The batch
            size stays free in the file.
        tolerance: largest difference from the model's outputs, relative to the largest of them.

    Returns:
        The path.

    Raises:
        InvalidArgument: for another suffix, a missing example, or one that the model refuses.
        UnsupportedLayer: where the model cannot be traced or holds what the format cannot.
        InexactRewrite: where the file does not give the model's outputs; nothing is written.
        MissingExtra: where ONNX is not installed.
        FileError: where the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        atomic_write(path, safetensors_bytes(model))
        return path
    writers: dict[str, Callable[[ExportedProgram, Path, Callable[..., None]], None]]
    writers = {".onnx": _write_onnx, ".pt2": _write_pt2}
    if path.suffix not in writers:
        raise InvalidArgument(f"{path.name}: expected a name ending in .onnx, .pt2 or .safetensors")
    if example is None:
        raise InvalidArgument(f"{path.name}: this form is traced, which needs an example input: export(model, path, x)")
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if path.suffix == ".onnx":
        require("onnx", "exporting to ONNX")
        require("onnxscript", "exporting to ONNX")
    with evaluating(model), torch.no_grad():
        probe = _probe(inputs)
        try:
            wanted = tree_leaves(model(*probe))
        except Exception as error:
            shapes = ", ".join(str(tuple(item.shape)) for item in probe)
            raise InvalidArgument(
                f"{type(model).__name__} fails on inputs of shape {shapes}, made from the example: {error}"
            ) from error
        # Weights in channels_last order would reach the file as slices of a larger storage, which torch warns about.
        plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        program = _trace(plain, inputs)

        def check(run: Callable[..., Any]) -> None:
            _check_outputs(path, tree_leaves(run(*probe)), wanted, tolerance)

        writers[path.suffix](program, path, check)
    return path


def load_safetensors(model: nn.Module, path: Path | str) -> None:
    """Fill a model with the weights of a file that `export` wrote; every name and shape must agree.

    Args:
        model: a model of the same architecture.
        path: the .safetensors file.

    Raises:
        CheckpointError: where the file is missing or damaged, or does not fit; the model is then left as it was.
    """
    path = Path(path)
    described = describe_safetensors(path)
    tensors = load_file(path)
    for alias, kept in described.get("tied", {}).items():
        if kept not in tensors:
            raise CheckpointError(f"{path}: {alias} shares the tensor {kept}, which is not there; export it again")
        tensors[alias] = tensors[kept]
    own = model.state_dict()
    origin = f"{path} (a {described['class']})" if "class" in described else str(path)
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unknown:
        raise CheckpointError(
            f"{origin} does not fit {type(model).__name__}: "
            f"the file lacks {missing[:8]}, the model lacks {unknown[:8]}; "
            "build the model with the same architecture (after a shrink: export .pt2, which carries the architecture)"
        )
    for name, expected in own.items():
        tensor = tensors[name]
        if (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
            raise CheckpointError(
                f"{origin}: {name}: expected {tuple(expected.shape)} {expected.dtype}, got {tuple(tensor.shape)} "
                f"{tensor.dtype}; build the model with the same widths"
            )
    model.load_state_dict(tensors)


def describe_safetensors(path: Path | str) -> Mapping[str, Any]:
    """Read what `export` noted in a .safetensors file: class, tied names, layers and shapes.

    Args:
        path: the file.

    Returns:
        The description; empty for a file of another origin.

    Raises:
        CheckpointError: where the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a whole .safetensors file, got: {error}; export it again") from error


def safetensors_bytes(model: nn.Module) -> bytes:
    """Content of the .safetensors file that `export` writes.

    Args:
        model: whose weights and description it holds.

    Raises:
        UnsupportedLayer: where a weight is not a dense tensor.
    """
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first_of: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise UnsupportedLayer(f"{name}: expected a dense tensor, got {type(tensor).__name__}; export .pt2 instead")
        view = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and view in first_of:
            tied[name] = first_of[view]
        else:
            first_of[view] = name
            kept[name] = tensor.detach().cpu().clone().contiguous()
    described = {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "tied": tied,
        "layers": {name or "(model)": type(module).__name__ for name, module in model.named_modules()},
        "shapes": {name: list(tensor.shape) for name, tensor in kept.items()},
    }
    return save(kept, metadata={"format": "pt", _METADATA_KEY: json.dumps(described)})


def _trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Trace a model with a free batch size, and drop the notes of where its code lies."""
    batch = Dim("batch", min=1)
    traced = tuple(_repeated(item, _TRACED_BATCH) for item in inputs)
    shapes = tuple({0: batch} if item.dim() else None for item in inputs)
    try:
        program = torch.export.export(model, traced, dynamic_shapes=_by_name(model, shapes))
    except Exception as error:
        raise UnsupportedLayer(
            f"{type(model).__name__} cannot be traced with a free batch size: {type(error).__name__}: {error}"
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _by_name(model: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the shapes as torch.export wants them for `forward(*inputs)` as well as for named arguments."""
    kinds = [one.kind for one in inspect.signature(model.forward).parameters.values()]  # also of a wrapped forward
    return (shapes,) if kinds[:1] == [inspect.Parameter.VAR_POSITIONAL] else shapes


def _write_pt2(program: ExportedProgram, path: Path, check: Callable[..., None]) -> None:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    check(torch.export.load(io.BytesIO(content)).module())
    atomic_write(path, content)


def _write_onnx(program: ExportedProgram, path: Path, check: Callable[..., None]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter calls what torch itself has deprecated
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:
        raise UnsupportedLayer(f"{path.name}: ONNX cannot express this model: {error}; export .pt2 instead") from error
    if exported is None:
        raise UnsupportedLayer(f"{path.name}: torch.onnx.export gave no program; export .pt2 instead")
    for value in (exported.model.graph, *exported.model.graph):
        for key in [key for key in value.metadata_props if "stack_trace" in key]:
            del value.metadata_props[key]
    with atomic_path(path) as temporary:
        exported.save(temporary, external_data=False)
        if available("onnxruntime"):
            check(_onnx_runner(temporary))


def _onnx_runner(path: Path) -> Callable[..., list[Tensor]]:
    """Give a function that runs an ONNX file on the CPU."""
    runtime = require("onnxruntime", "checking an ONNX file")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: item.cpu().numpy() for name, item in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def _repeated(item: Tensor, batch_size: int) -> Tensor:
    return item.detach() if item.dim() == 0 else item[:1].detach().repeat(batch_size, *[1] * (item.dim() - 1))


def _probe(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make inputs of another batch size: noise of the example's size where it is a float, its values otherwise."""
    generator = torch.Generator().manual_seed(0)
    probes = []
    for item in inputs:
        probe = _repeated(item, _PROBED_BATCH)
        if probe.is_floating_point() and probe.dim():
            size = float(item.abs().max()) or 1.0
            probe = (torch.randn(probe.shape, generator=generator) * size).to(probe)
        probes.append(probe)
    return tuple(probes)


def _check_outputs(path: Path, got: list[Any], wanted: list[Any], tolerance: float) -> None:
    pairs = [(a, b) for a, b in zip(got, wanted, strict=False) if isinstance(b, Tensor)]
    if len(got) != len(wanted):
        raise InexactRewrite(f"{path.name}: expected {len(wanted)} outputs, got {len(got)}; nothing was written")
    for index, (a, b) in enumerate(pairs):
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        scale = float(b.nan_to_num(0.0).abs().max()) if b.numel() else 0.0
        if a.shape != b.shape or not torch.allclose(a, b, rtol=0.0, atol=tolerance * (scale or 1.0), equal_nan=True):
            worst = f"{float((a - b).abs().max()):.2e}" if a.shape == b.shape else f"shape {tuple(a.shape)}"
            raise InexactRewrite(
                f"{path.name}: output {index} differs from the model's: {worst}, where {tolerance:.0e} of {scale:.3g} "
                "is allowed; nothing was written. Report the layer, or raise `tolerance`"
            )
