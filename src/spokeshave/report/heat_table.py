"""A table of shares that a record keeps and a page shows as a heat map, such as accuracy by strength of attack."""

from dataclasses import dataclass, field
from typing import Any

import torch

from spokeshave.errors import DataError
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.heat_map import Side, heat_map


@dataclass(frozen=True)
class HeatTable:
    """Shares by row and column; JSON values throughout.

    Attributes:
        title: its heading.
        rows: what the rows are.
        row_names: one a row, from top to bottom.
        columns: what the columns are.
        column_names: one a column.
        values: 0..1, row by row.
        outlined: whether each is framed, row by row; empty where none is.
        framed: what a frame means; empty where nothing is framed.
    """

    title: str
    rows: str
    row_names: list[str]
    columns: str
    column_names: list[str]
    values: list[list[float]]
    outlined: list[list[bool]] = field(default_factory=list)
    framed: str = ""


def heat_table_figure(table: HeatTable) -> Figure:
    """Draw a table; depths are shares of 0..1, so that tables can be compared.

    Args:
        table: what is shown.
    """
    outlined = torch.tensor(table.outlined) if table.outlined else None
    sides = Side(table.rows, table.row_names), Side(table.columns, table.column_names)
    drawn = heat_map(table.title, torch.tensor(table.values), *sides, limits=(0.0, 1.0), outlined=outlined)
    return Figure(drawn.title, drawn.chart, (LegendEntry(table.framed, mark="framed"),) if table.framed else ())


def heat_table_from(content: Any, source: str) -> HeatTable:
    """Build a table from what a record holds.

    Args:
        content: its fields.
        source: where they are from, for errors.

    Raises:
        DataError: where a field is missing or unknown, sizes do not fit, or a value is outside 0..1.
    """
    try:
        table = HeatTable(**content)
        grids = [table.values, table.outlined] if table.outlined else [table.values]
        wide, high = len(table.column_names), len(table.row_names)
        fits = wide and high and all(len(grid) == high and {len(row) for row in grid} == {wide} for grid in grids)
        shares = all(_is_share(value) for row in table.values for value in row)
        flags = all(isinstance(flag, bool) for row in table.outlined for flag in row)
        named = all(
            isinstance(text, str)
            for text in (table.title, table.rows, table.columns, table.framed, *table.row_names, *table.column_names)
        )
    except TypeError as error:
        raise DataError(f"{source}: tables: {error}; run the recipe again") from error
    if not (fits and shares and flags and named):
        raise DataError(
            f"{source}: tables: {table.title}: expected {high} x {wide} values in 0..1, as many flags or none, and "
            "names that are texts; run the recipe again"
        )
    return table


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
