"""What a model costs: parameters, bytes, FLOPs and latency, whole and per layer; two models timed side by side.

FLOPs are counted by torch's `FlopCounterMode` from the operations that really run (a convolution that gathers the few
patch rows it needs is charged for those only). Generated code, which torch does not see, is charged for its nonzeros,
by what its modules say themselves (`HasOwnCosts`). One multiply-add counts as 2. Elementwise work, pooling and
normalization count as 0, as in the papers' tables.
Latencies are medians with the inter-quartile spread, after a warm-up, in eval and inference mode.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from rich.table import Table
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.own_costs import OwnCost, images_through, own_costs_of
from spokeshave.timing import ROOT, count_flops, evaluating, median_and_spread, time_in_turns, time_layers

Example = Tensor | tuple[Tensor, ...]
_Record = TypeVar("_Record")
_PARAMETER_LISTS = (nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer on its own, the layers inside it left out.

    `flops` is for one image; `latency_s` is one call at batch 1 on one thread (None where it was not timed).
    """

    name: str
    kind: str
    parameters: int
    flops: int
    latency_s: float | None


@dataclass(frozen=True)
class Latency:
    """Seconds for one batch: median of `repeats` samples, `spread_s` the distance between their quartiles."""

    batch_size: int
    threads: int
    median_s: float
    spread_s: float
    repeats: int


@dataclass(frozen=True)
class Measurement:
    """Cost of a whole model.

    `flops` is for one image, `bytes` the parameters and the buffers; a nonzero of generated code counts as its value
    and its position, 8 bytes, in whatever layouts it stands in memory.
    """

    parameters: int
    nonzero_parameters: int
    bytes: int
    flops: int
    layers: tuple[LayerCost, ...]
    latencies: tuple[Latency, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the measurement as plain numbers, strings and lists, ready for JSON."""
        return _plain(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Measurement":
        """Rebuild a measurement from what `to_dict` gave.

        Raises:
            InvalidArgument: where a field is missing or unknown.
        """
        return _rebuild(cls, fields, layers=LayerCost, latencies=Latency)

    def table(self) -> Table:
        """Give the measurement as a table for the terminal."""
        table = Table(title=f"{self.parameters:,} parameters, {self.bytes:,} bytes, {self.flops:,} FLOPs an image")
        for column in ("layer", "kind"):
            table.add_column(column, overflow="fold")
        for column in ("parameters", "FLOPs", "ms"):
            table.add_column(column, justify="right")
        for layer in self.layers:
            time_ms = "" if layer.latency_s is None else f"{layer.latency_s * 1e3:.3f}"
            table.add_row(layer.name, layer.kind, f"{layer.parameters:,}", f"{layer.flops:,}", time_ms)
        for row in self.latencies:
            label = f"batch {row.batch_size}, {row.threads} thread" + "s" * (row.threads != 1)
            table.add_row("whole", label, "", "", f"{row.median_s * 1e3:.3f} ± {row.spread_s * 1e3:.3f}")
        return table


@dataclass(frozen=True)
class LatencyRatio:
    """Two models on the same batch: `ratio` = before / after (above 1: the second is faster), median over pairs."""

    batch_size: int
    threads: int
    ratio: float
    ratio_spread: float
    before_s: float
    before_spread_s: float
    after_s: float
    after_spread_s: float
    repeats: int


@dataclass(frozen=True)
class LayerTime:
    """One layer in both models: median seconds of one call on one thread; None in the model that lacks the layer."""

    name: str
    kind: str
    before_s: float | None
    after_s: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models timed in turns, in one process. `layers` were timed at `layer_batch_size` on one thread."""

    rows: tuple[LatencyRatio, ...]
    layers: tuple[LayerTime, ...]
    layer_batch_size: int

    def to_dict(self) -> dict[str, Any]:
        """Give the comparison as plain numbers, strings and lists, ready for JSON."""
        return _plain(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Comparison":
        """Rebuild a comparison from what `to_dict` gave.

        Raises:
            InvalidArgument: where a field is missing or unknown.
        """
        return _rebuild(cls, fields, rows=LatencyRatio, layers=LayerTime)

    def table(self) -> Table:
        """Give the comparison as a table for the terminal."""
        table = Table(title="Measured side by side (median, quartile spread)")
        for column in ("batch", "threads", "before ms", "after ms", "times faster"):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(
                str(row.batch_size),
                str(row.threads),
                f"{row.before_s * 1e3:.3f} ± {row.before_spread_s * 1e3:.3f}",
                f"{row.after_s * 1e3:.3f} ± {row.after_spread_s * 1e3:.3f}",
                f"{row.ratio:.2f} ± {row.ratio_spread:.2f}",
            )
        return table


def measure(
    model: nn.Module,
    example: Example,
    *,
    threads: Sequence[int | None] = (1, None),
    batch_sizes: Sequence[int] = (1, 16),
    repeats: int = 30,
    budget_s: float = 5.0,
    latency: bool = True,
) -> Measurement:
    """Count a model's parameters, bytes and FLOPs, and time it.

    Args:
        model: any module; its modes, weights and gradients are left as they are.
        example: input of the model, a tensor or a tuple of tensors, batch first, on the model's device. The first
            image is used, and repeated to make a batch.
        threads: numbers of CPU threads to time with; None is as many as torch is set to use now.
        batch_sizes: numbers of images to time with.
        repeats: timed samples of each setting, at least 1.
        budget_s: seconds after which one setting stops sampling (once it has 5 samples).
        latency: False counts only, and times nothing.

    Returns:
        The measurement. A parameter that several layers share counts once, with the first of them.

    Raises:
        InvalidArgument: where the example is no tensor, the model fails on it, or a setting is below 1.

    Example:
        >>> from torch import nn, zeros
        >>> cost = measure(nn.Linear(10, 4), zeros(1, 10), latency=False)
        >>> cost.parameters, cost.flops, cost.bytes
        (44, 80, 176)
    """
    inputs, thread_counts = _checked(example, threads, batch_sizes, repeats)
    with evaluating(model):
        one = _batch(inputs, 1)
        _try(model, one)
        own = own_costs_of(model)
        with images_through(model, own) as images:
            flops, total_flops = count_flops(model, one)
        own = {name: [replace(cost, flops=cost.flops * images[name]) for cost in costs] for name, costs in own.items()}
        latencies: list[Latency] = []
        times: dict[str, float] = {}
        if latency:
            times = time_layers([model], one, repeats, budget_s)[0]
            for batch_size in batch_sizes:
                batch = _batch(inputs, batch_size)
                for count in thread_counts:
                    samples = time_in_turns([model], batch, count, repeats, budget_s)[0]
                    latencies.append(Latency(batch_size, count, *median_and_spread(samples), len(samples)))
    tensors, others = [*model.parameters(), *model.buffers()], [cost for costs in own.values() for cost in costs]
    nonzeros = sum(int(torch.count_nonzero(parameter.detach())) for parameter in model.parameters())
    return Measurement(
        parameters=sum(parameter.numel() for parameter in model.parameters()) + sum(o.parameters for o in others),
        nonzero_parameters=nonzeros + sum(other.nonzero_parameters for other in others),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors) + sum(o.bytes for o in others),
        flops=total_flops + sum(other.flops for other in others if not other.seen_by_torch),
        layers=tuple(_layer_costs(model, flops, times, own)),
        latencies=tuple(latencies),
    )


def compare(
    before: nn.Module,
    after: nn.Module,
    example: Example,
    *,
    threads: Sequence[int | None] = (1, None),
    batch_sizes: Sequence[int] = (1, 16),
    repeats: int = 30,
    budget_s: float = 10.0,
    layer_batch_size: int | None = None,
) -> Comparison:
    """Time two models in turns (A B, B A, A B, ...) in this process, whole and layer by layer.

    Args:
        before: the model compared against.
        after: the other one; layers are matched by their names.
        example: input of both, as in `measure`.
        threads: numbers of CPU threads; None is as many as torch is set to use now.
        batch_sizes: numbers of images.
        repeats: pairs of samples of each setting, at least 1.
        budget_s: seconds after which one setting stops sampling (once it has 5 pairs).
        layer_batch_size: images in the batch that times single layers; None takes the first of `batch_sizes`.

    Returns:
        For each batch size and thread count the median ratio of times, its quartile spread and both medians.

    Raises:
        InvalidArgument: where the example is no tensor, a model fails on it, or a setting is below 1.
    """
    inputs, thread_counts = _checked(example, threads, batch_sizes, repeats)
    layer_batch_size = batch_sizes[0] if layer_batch_size is None else layer_batch_size
    models = [before, after]
    rows: list[LatencyRatio] = []
    with evaluating(before), evaluating(after):
        for model in models:
            _try(model, _batch(inputs, 1))
        for batch_size in batch_sizes:
            batch = _batch(inputs, batch_size)
            for count in thread_counts:
                first, second = time_in_turns(models, batch, count, repeats, budget_s)
                ratios = [a / b for a, b in zip(first, second, strict=True)]
                summary = (*median_and_spread(ratios), *median_and_spread(first), *median_and_spread(second))
                rows.append(LatencyRatio(batch_size, count, *summary, len(ratios)))
        old, new = time_layers(models, _batch(inputs, layer_batch_size), repeats, budget_s)
    kinds = {name: kind for model in (after, before) for name, kind in _layer_kinds(model).items()}
    names = [name for name in dict.fromkeys([*old, *new]) if name in kinds]
    layers = tuple(LayerTime(name, kinds[name], old.get(name), new.get(name)) for name in names)
    return Comparison(tuple(rows), layers, layer_batch_size)


def _checked(
    example: object, threads: Sequence[int | None], batch_sizes: Sequence[int], repeats: int
) -> tuple[tuple[Tensor, ...], list[int]]:
    """Check the settings; give the inputs as a tuple and the distinct thread counts."""
    inputs = (example,) if isinstance(example, Tensor) else example
    if not isinstance(inputs, tuple) or not inputs or not all(isinstance(item, Tensor) for item in inputs):
        raise InvalidArgument(
            f"example: expected a tensor or a tuple of tensors (batch first), got {type(example).__name__}; "
            "give one input of the model, such as torch.zeros(1, 3, 32, 32)"
        )
    if any(item.dim() > 0 and item.shape[0] == 0 for item in inputs):
        raise InvalidArgument("example: expected at least one image along dimension 0, got an empty batch")
    if not threads or not batch_sizes:
        raise InvalidArgument("threads and batch_sizes: expected at least one value each, got none")
    counts = [torch.get_num_threads() if count is None else count for count in threads]
    for name, values in (("threads", counts), ("batch_sizes", batch_sizes), ("repeats", [repeats])):
        if min(values) < 1:
            raise InvalidArgument(f"{name}: expected values of 1 or more, got {min(values)}")
    return inputs, list(dict.fromkeys(counts))


def _batch(inputs: tuple[Tensor, ...], batch_size: int) -> tuple[Tensor, ...]:
    """Repeat the first image along dimension 0; a tensor without dimensions stays as it is."""
    return tuple(
        item.detach() if item.dim() == 0 else item[:1].detach().repeat(batch_size, *[1] * (item.dim() - 1))
        for item in inputs
    )


def _try(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run the model once, and say plainly where it cannot take the example."""
    try:
        with torch.inference_mode():
            model(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
        raise InvalidArgument(
            f"{type(model).__name__} fails on an example of shape {shapes}: {type(error).__name__}: {error}; "
            "give an input that the model accepts, on the model's device"
        ) from error


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Give the modules directly inside, lists of parameters left out: those belong to the module itself."""
    return (child for child in module.children() if not isinstance(child, _PARAMETER_LISTS))


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Give the parameters of a module, those of the modules inside left out."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if isinstance(child, _PARAMETER_LISTS):
            yield from child.parameters()


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give what gets a row: the whole model, every leaf, and modules that hold parameters themselves."""
    for name, module in model.named_modules():
        is_leaf = next(_parts(module), None) is None or next(_own_parameters(module), None) is not None
        if (is_leaf or not name) and not isinstance(module, _PARAMETER_LISTS):
            yield name or ROOT, module


def _layer_kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in _layers(model)}


def _layer_costs(
    model: nn.Module, flops: dict[str, int], times: dict[str, float], own: Mapping[str, Sequence[OwnCost]]
) -> Iterator[LayerCost]:
    """Give every layer that holds parameters, costs FLOPs or was timed as a layer, in the model's order."""
    counted: set[int] = set()
    layers = dict(_layers(model))
    for name, module in model.named_modules():
        label = name or ROOT
        held = []
        for parameter in _own_parameters(module):
            if id(parameter) not in counted:
                counted.add(id(parameter))
                held.append(parameter)
        parameters = 0 if isinstance(module, _PARAMETER_LISTS) else sum(parameter.numel() for parameter in held)
        inside, itself = ([one for one in own.get(name, ()) if bool(one.name) is named] for named in (True, False))
        parameters += sum(one.parameters for one in itself)
        left = flops.get(label, 0) - sum(one.flops for one in inside if one.seen_by_torch)
        left += sum(one.flops for one in itself if not one.seen_by_torch)
        if parameters or left or (label in times and label in layers):
            yield LayerCost(label, type(module).__name__, parameters, left, times.get(label))
        for one in inside:
            yield LayerCost(f"{name}.{one.name}".lstrip("."), one.kind, one.parameters, one.flops, None)


def _plain(record: Any) -> dict[str, Any]:
    """Give a dataclass as a dict with lists in place of tuples, as JSON would give it back."""
    return asdict(record, dict_factory=lambda pairs: {k: list(v) if isinstance(v, tuple) else v for k, v in pairs})


def _rebuild(cls: Callable[..., _Record], fields: Mapping[str, Any], **parts: Callable[..., Any]) -> _Record:
    """Build a dataclass, its tuples of dataclasses included, from plain fields."""
    try:
        rebuilt = {name: tuple(part(**item) for item in fields[name]) for name, part in parts.items()}
        return cls(**{**fields, **rebuilt})
    except (KeyError, TypeError) as error:
        raise InvalidArgument(
            f"{getattr(cls, '__name__', cls)}: cannot be read from fields {sorted(fields)}: {error}; "
            "give what to_dict() of the same version wrote"
        ) from error
