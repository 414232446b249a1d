"""Shrink report: what `shrink` removed, layer by layer, as data and as a table."""

import dataclasses
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class LayerChange:
    """One convolution or linear layer before and after.

    Attributes:
        name: the layer's name in the model.
        kind: its class before, such as 'Conv2d'.
        weight_shape_before: shape of the weight as given; () for a layer without.
        weight_shape_after: shape of the weight that is left; (0,) where the layer is gone.
        filters_kept, filters_total: output channels, (out features of a linear layer).
        channels_kept, channels_total: input channels, over all conv groups.
        columns_kept, columns_total: columns of the lowered weight matrix that are not zero, over all conv groups.
        squeezed: True where zero rows or columns inside the kept channels are skipped too.
        note: a remark, '' where there is none.
    """

    name: str
    kind: str
    weight_shape_before: tuple[int, ...]
    weight_shape_after: tuple[int, ...]
    filters_kept: int
    filters_total: int
    channels_kept: int
    channels_total: int
    columns_kept: int
    columns_total: int
    squeezed: bool
    note: str = ""


@dataclass(frozen=True)
class ShrinkReport:
    """What a call of `shrink` changed.

    Attributes:
        layers: every convolution and linear layer of the model, in order of execution.
        removed_branches: names of layers that are gone because their whole branch was constant or unused.
        notes: remarks: what was kept whole, and why.
        max_relative_error: largest max|new - old| / max|old| over the probes.
        parameters_before, parameters_after: numbers of parameters.
    """

    layers: tuple[LayerChange, ...]
    removed_branches: tuple[str, ...]
    notes: tuple[str, ...]
    max_relative_error: float
    parameters_before: int
    parameters_after: int

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings.

        Returns:
            a dict that `json.dumps` accepts.

        Example:
            >>> ShrinkReport((), ("conv2",), (), 0.0, 10, 4).to_dict()["removed_branches"]
            ['conv2']
        """
        plain = dataclasses.asdict(self)
        plain["removed_branches"] = list(self.removed_branches)
        plain["notes"] = list(self.notes)
        plain["layers"] = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in layer.items()}
            for layer in plain["layers"]
        ]
        return plain

    def table(self) -> Table:
        """The report as a table for the terminal.

        Returns:
            a rich table, one row a layer.
        """
        title = f"parameters {self.parameters_before:,} -> {self.parameters_after:,}"
        table = Table(title=title, caption="\n".join(self.notes) or None)
        for heading in ("layer", "kind", "filters", "channels", "columns", "weight", "note"):
            table.add_column(heading, justify="left" if heading in ("layer", "kind", "note") else "right")
        for layer in self.layers:
            remarks = [layer.note] if layer.note else []
            if layer.name in self.removed_branches:
                remarks.append("removed")
            if layer.squeezed:
                remarks.append("squeezed")
            table.add_row(
                layer.name,
                layer.kind,
                f"{layer.filters_kept}/{layer.filters_total}",
                f"{layer.channels_kept}/{layer.channels_total}",
                f"{layer.columns_kept}/{layer.columns_total}",
                "x".join(map(str, layer.weight_shape_after)),
                ", ".join(remarks),
            )
        return table
