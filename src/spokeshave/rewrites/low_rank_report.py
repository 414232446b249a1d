"""Low-rank report: what `low_rank` split, layer by layer, at what error, and what it buys, as data and as a table."""

import dataclasses
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class LowRankLayer:
    """One convolution, linear layer or projection of an attention.

    Attributes:
        name: in the model.
        kind: its class before.
        split: 'filters' or 'separable'; '' where it was left whole.
        groups: of a convolution, 1 for the rest.
        rank: of each group; None where it was left whole.
        full_rank: largest rank of a group; 0 where it was not looked at.
        error: ||old weight - new weight||^2 / ||old weight||^2, 0..1; 0 where it was left whole.
        flops_before, flops_after: of one image, all calls together.
        predicted_speedup: time by the roofline, before over after, at the example's batch; of a layer left whole, at
            the rank that it would have got; None where no rank was looked at.
        measured_speedup, measured_spread: median of pairs timed in turns and distance between their quartiles; None
            where nothing was measured.
        why_whole: '' where it was split.
    """

    name: str
    kind: str
    split: str
    groups: int
    rank: int | None
    full_rank: int
    error: float
    flops_before: float
    flops_after: float
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    measured_spread: float | None = None
    why_whole: str = ""


@dataclass(frozen=True)
class LowRankReport:
    """What a call of `low_rank` changed.

    Attributes:
        layers: all that could be split by their kind, in the model's order.
        parameters_before, parameters_after: numbers of parameters.
        flops_before, flops_after: of one image, the whole network, attention included.
        predicted_speedup: of all layers together, by the roofline, at the example's batch.
        max_relative_error: largest max|new - old| / max|old| of the network over the probes.
        measured_speedup, measured_spread: of the whole network; None where nothing was measured.
        notes: remarks.
    """

    layers: tuple[LowRankLayer, ...]
    parameters_before: int
    parameters_after: int
    flops_before: float
    flops_after: float
    predicted_speedup: float
    max_relative_error: float
    measured_speedup: float | None = None
    measured_spread: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def split_layers(self) -> tuple[LowRankLayer, ...]:
        """The layers that were split."""
        return tuple(layer for layer in self.layers if layer.rank is not None)

    @property
    def mean_rank_ratio(self) -> float:
        """Mean of rank over full rank of the layers that were split, above 0, at most 1."""
        ratios = [layer.rank / layer.full_rank for layer in self.layers if layer.rank is not None]
        return sum(ratios) / len(ratios)

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings.

        Returns:
            a dict that `json.dumps` accepts.

        Example:
            >>> LowRankReport((), 10, 4, 20.0, 8.0, 2.5, 0.1).to_dict()["flops_after"]
            8.0
        """
        plain: dict[str, object] = dataclasses.asdict(self)
        return plain | {"layers": [dataclasses.asdict(layer) for layer in self.layers], "notes": list(self.notes)}

    def table(self) -> Table:
        """The report as a table for the terminal.

        Returns:
            a rich table, one row a layer.
        """
        title = (
            f"parameters {self.parameters_before:,} -> {self.parameters_after:,}, "
            f"FLOPs {self.flops_before:,.0f} -> {self.flops_after:,.0f}, predicted {self.predicted_speedup:.2f}x"
        )
        if self.measured_speedup is not None:
            title += f", measured {self.measured_speedup:.2f} ± {self.measured_spread:.2f}x"
        table = Table(title=title, caption="\n".join(self.notes) or None)
        for heading in ("layer", "kind", "split", "rank", "error", "FLOPs", "predicted", "measured", "left whole"):
            left = heading in ("layer", "kind", "split", "left whole")
            table.add_column(heading, justify="left" if left else "right")
        for layer in self.layers:
            flops = layer.flops_after / layer.flops_before if layer.flops_before else 1.0
            measured = "" if layer.measured_speedup is None else f"{layer.measured_speedup:.2f}x"
            table.add_row(
                layer.name or "(model)",
                layer.kind,
                layer.split,
                "" if layer.rank is None else f"{layer.rank}/{layer.full_rank}",
                "" if layer.rank is None else f"{100 * layer.error:.2f} %",
                f"{100 * flops:.0f} %",
                "" if layer.predicted_speedup is None else f"{layer.predicted_speedup:.2f}x",
                measured,
                layer.why_whole,
            )
        return table
