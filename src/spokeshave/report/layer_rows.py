"""The per-layer table of a run: what each layer kept, what it costs, and the speedup predicted and measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spokeshave.measure import LayerCost
from spokeshave.report.run_record import RunRecord
from spokeshave.timing import ROOT


@dataclass(frozen=True)
class Kept:
    """How many of something are left: filters, channels or columns."""

    kept: int
    total: int

    @property
    def share(self) -> float:
        """Share that is left, 0..1."""
        return self.kept / self.total if self.total else 0.0


@dataclass(frozen=True)
class Pair:
    """A cost before and after; `scale` is the largest of either in the table's column, for bars (0: no bar)."""

    before: float
    after: float
    scale: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Times less, before / after; None where nothing is left."""
        return self.before / self.after if self.after else None


@dataclass(frozen=True)
class LayerRow:
    """One layer of the table; a column that is not known is None."""

    name: str
    kind: str
    removed: bool
    note: str
    filters: Kept | None
    channels: Kept | None
    columns: Kept | None
    parameters: Pair
    flops: Pair
    time: Pair | None


def layer_rows(record: RunRecord) -> list[LayerRow]:
    """Match the layers of both networks by name; those that do no multiply-adds are gathered in one last row.

    Args:
        record: the run.

    Returns:
        One row a layer with FLOPs, then "the other layers" where there are any.
    """
    before = record.baseline.measurement.layers
    after = record.final.measurement.layers
    changes = {change["name"]: change for change in (record.shrink or {}).get("layers", ()) if "name" in change}
    times_before, times_after = _times(record)
    main = [cost for cost in before if cost.flops]
    names = [cost.name for cost in main]
    rows = []
    for cost in main:
        own = [item for item in after if _belongs(item.name, cost.name, names)]
        time_after = _sum_of(times_after, cost.name, names)
        time = None
        if cost.name in times_before and (time_after is not None or not own):
            time = Pair(times_before[cost.name], time_after or 0.0)
        change = changes.get(cost.name, {})
        rows.append(
            LayerRow(
                name=cost.name,
                kind=_kind(cost, own),
                removed=not own,
                note=str(change.get("note") or ""),
                filters=_kept(change, "filters"),
                channels=_kept(change, "channels"),
                columns=_kept(change, "columns"),
                parameters=Pair(cost.parameters, sum(item.parameters for item in own)),
                flops=Pair(cost.flops, sum(item.flops for item in own)),
                time=time,
            )
        )
    return _scaled(rows) + _others(before, after, names, times_before, times_after)


def total_row(rows: Iterable[LayerRow]) -> dict[str, Pair | None]:
    """Add a table up.

    Args:
        rows: its rows.

    Returns:
        parameters, flops and time (None where no layer was timed).
    """
    rows = list(rows)
    timed = [row.time for row in rows if row.time is not None]
    return {
        "parameters": _added([row.parameters for row in rows]),
        "flops": _added([row.flops for row in rows]),
        "time": _added(timed) if timed else None,
    }


def _scaled(rows: list[LayerRow]) -> list[LayerRow]:
    """Give every cost the scale of its column."""
    flops = max((max(row.flops.before, row.flops.after) for row in rows), default=0.0)
    times = max((max(row.time.before, row.time.after) for row in rows if row.time), default=0.0)
    return [
        replace(row, flops=replace(row.flops, scale=flops), time=row.time and replace(row.time, scale=times))
        for row in rows
    ]


def _others(
    before: Iterable[LayerCost],
    after: Iterable[LayerCost],
    names: list[str],
    times_before: Mapping[str, float],
    times_after: Mapping[str, float],
) -> list[LayerRow]:
    """Gather the layers without FLOPs: pooling, normalization, activations, and what runs outside layers."""
    old = [cost for cost in before if not cost.flops]
    new = [cost for cost in after if not any(_belongs(cost.name, name, names) for name in names)]
    if not old and not new:
        return []
    time_before = sum(value for name, value in times_before.items() if name not in names)
    time_after = sum(
        value for name, value in times_after.items() if not any(_belongs(name, main, names) for main in names)
    )
    return [
        LayerRow(
            name="all others",
            kind=", ".join(dict.fromkeys("outside layers" if c.name == ROOT else c.kind for c in [*old, *new])),
            removed=False,
            note="",
            filters=None,
            channels=None,
            columns=None,
            parameters=Pair(sum(c.parameters for c in old), sum(c.parameters for c in new)),
            flops=Pair(0, sum(c.flops for c in new)),
            time=Pair(time_before, time_after) if times_before else None,
        )
    ]


def _belongs(name: str, layer: str, layers: list[str]) -> bool:
    """Say whether a module is the layer or a part that a rewrite put inside it."""
    return name == layer or (name.startswith(layer + ".") and name not in layers)


def _sum_of(values: Mapping[str, float], layer: str, layers: list[str]) -> float | None:
    found = [value for name, value in values.items() if _belongs(name, layer, layers)]
    return sum(found) if found else None


def _times(record: RunRecord) -> tuple[dict[str, float], dict[str, float]]:
    """Give seconds by layer of both networks: timed in turns where that was done, or else each alone."""
    if record.comparison:
        layers = record.comparison.layers
        before = {layer.name: layer.before_s for layer in layers if layer.before_s is not None}
        after = {layer.name: layer.after_s for layer in layers if layer.after_s is not None}
        return before, after
    pair = [
        {cost.name: cost.latency_s for cost in outcome.measurement.layers if cost.latency_s is not None}
        for outcome in (record.baseline, record.final)
    ]
    return pair[0], pair[1]


def _kind(before: LayerCost, after: list[LayerCost]) -> str:
    kinds = list(dict.fromkeys(cost.kind for cost in after))
    return before.kind if not kinds or kinds == [before.kind] else f"{before.kind} → {' + '.join(kinds)}"


def _kept(change: Mapping[str, Any], what: str) -> Kept | None:
    kept, total = change.get(f"{what}_kept"), change.get(f"{what}_total")
    return Kept(int(kept), int(total)) if kept is not None and total else None


def _added(pairs: list[Pair]) -> Pair:
    before = sum(pair.before for pair in pairs)
    return Pair(before, sum(pair.after for pair in pairs))
