"""The paper's row beside ours, quantity by quantity."""

from collections.abc import Callable, Mapping
from typing import Any

from spokeshave.report import wording
from spokeshave.report.layer_rows import layer_rows
from spokeshave.report.run_record import RunRecord

_NAMES = {
    "error": "test error",
    "baseline": "test error before",
    "flops": "FLOPs left",
    "parameters": "parameters left",
    "speedup": "speedup of layers",
    "layers": "layers left",
}


def published_rows(record: RunRecord) -> list[tuple[str, str, str]]:
    """Lay the published row beside ours.

    Args:
        record: the run; its `paper` maps a quantity to its published value, or to {"published", "ours"}. Ours is found
            in the record for error, baseline (the error before), accuracy, flops and parameters (shares that are
            left), filters, channels, columns, neurons, layers and speedup.

    Returns:
        Quantity, published value and ours ("" where there is none).
    """
    rows = []
    for quantity, value in (record.paper or {}).items():
        if quantity == "label":
            continue
        if isinstance(value, Mapping):
            published, ours = value.get("published"), value.get("ours")
        else:
            published, ours = value, _OURS.get(quantity, lambda _: None)(record)
        is_share = quantity in _SHARES
        name = _NAMES.get(quantity, quantity.replace("_", " "))
        rows.append((name, _shown(published, is_share), _shown(ours, is_share)))
    return rows


def kept_counts(record: RunRecord) -> dict[str, str]:
    """What shrinking kept, as the papers write it: layer by layer with dashes, under the papers' names.

    Args:
        record: the run.

    Returns:
        filters, channels and columns of the convolutions, neurons (inputs that are read, then outputs), layers.
    """
    kinds = ("filters", "channels", "columns", "neurons", "layers")
    return {kind: _shown(_OURS[kind](record), False) for kind in kinds}


def _left(record: RunRecord, what: str) -> float | None:
    before = getattr(record.baseline.measurement, what)
    return getattr(record.final.measurement, what) / before if before else None


def _counts(record: RunRecord, what: str, convolutions_only: bool = True) -> list[int]:
    layers = (record.shrink or {}).get("layers", ())
    chosen = [layer for layer in layers if not convolutions_only or "Conv" in str(layer.get("kind"))]
    return [int(layer[what]) for layer in chosen if layer.get(what) is not None]


def _neurons(record: RunRecord) -> list[int]:
    """Inputs that the first layer reads, then the outputs of every layer."""
    return _counts(record, "columns_kept", False)[:1] + _counts(record, "filters_kept", False)


def _speedups(record: RunRecord) -> list[str]:
    rows = [row for row in layer_rows(record) if row.time is not None and "Conv" in row.kind]
    return [wording.times(row.time.ratio) for row in rows if row.time is not None and row.time.ratio]


def _layers(record: RunRecord) -> int | None:
    """Count the layers with weights that are left; 1 x 1 projections of shortcuts do not count, as in the paper."""
    shrink = record.shrink or {}
    layers = [
        layer.get("name")
        for layer in shrink.get("layers", ())
        if list(layer.get("weight_shape_before", ()))[2:] != [1, 1]
    ]
    return len([name for name in layers if name not in shrink.get("removed_branches", ())]) or None


_OURS: dict[str, Callable[[RunRecord], Any]] = {
    "error": lambda record: record.final.error,
    "accuracy": lambda record: record.final.accuracy,
    "baseline": lambda record: record.baseline.error,
    "flops": lambda record: _left(record, "flops"),
    "parameters": lambda record: _left(record, "parameters"),
    "filters": lambda record: _counts(record, "filters_kept"),
    "channels": lambda record: _counts(record, "channels_kept"),
    "columns": lambda record: _counts(record, "columns_kept"),
    "neurons": _neurons,
    "speedup": _speedups,
    "layers": _layers,
}
_SHARES = ("error", "accuracy", "baseline", "flops", "parameters")


def _shown(value: Any, is_share: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "-".join(_shown(item, is_share) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item, is_share)}" for key, item in value.items())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return wording.percent(value) if is_share else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    return str(value)
