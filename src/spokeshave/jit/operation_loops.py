"""Operation loops: native loops over items of work that any number of threads may share.

An operation is a C function of the address of a table, of the number of the thread that calls it and of how many
threads there are. The table begins with counters, each in a cache line of its own: how many items are finished, and the
next item of each range. A range is the part of the items that a thread begins with: a thread that finds the same part
of the image in its range in one operation after another reads what it wrote itself. When its own range is done it goes
on with what is left of the others'.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import I64, POINTER, Loops

LINE = 64
"""Bytes of a cache line; where lines are longer, neighbours share one, which costs time only."""
MOST_RANGES = 8
"""With more threads than that, several begin in the same range."""
FINISHED = 0
"""Place of the number of finished items in a table, in 64-bit words."""
NEXT_ITEM = LINE // 8
"""Place of the counter of the first range; those of the others follow, a line apart."""
PATCH_FIELDS = ("planes", "rows", "bands")
"""Fields of an operation whose items are patches."""
_BLOCKS_OF_PLANES = 8
"""Items of a band: what a thread that is done first can take from another."""
ITEMS = NEXT_ITEM + MOST_RANGES * LINE // 8
FIRST_FIELD = ITEMS + 1


class OperationLoops(Loops):
    """An operation under construction.

    Args:
        name: of the function.
        vectors: set of instructions to write for.
        fields: names of what stands in the table behind the counters; those that end in `_at` are addresses.

    Attributes:
        arguments: the fields' values by name.
        thread: number of the calling thread, from 0; no other thread has it in the same run.
    """

    def __init__(self, name: str, vectors: VectorSet, fields: Sequence[str]) -> None:
        super().__init__(name, vectors, table=POINTER, thread=I64, threads=I64)
        self._table, self.thread, self._threads = self.arguments.values()
        self.fields = tuple(fields)
        self.arguments = {}
        for number, field in enumerate(fields):
            kind = POINTER if field.endswith("_at") else I64
            self.arguments[field] = self.load(self.at(self._table, 8 * (FIRST_FIELD + number)), kind, 8)

    @contextmanager
    def items(self) -> Iterator[ir.Value]:
        """Take item after item until none is left; gives its number."""
        build = self.builder
        items = self.load(self.at(self._table, 8 * ITEMS), I64, 8)
        ranges = number_of_ranges(build, items, self._threads)
        own = build.udiv(build.mul(self.thread, ranges), self._threads)
        with build.goto_entry_block():
            finished = build.alloca(I64)
        self.store(I64(0), finished, 8)
        with self.loop(0, ranges) as turn:
            beyond = build.add(own, turn)
            mine = build.select(build.icmp_unsigned("<", beyond, ranges), beyond, build.sub(beyond, ranges))
            first = build.udiv(build.mul(mine, items), ranges)
            size = build.sub(build.udiv(build.mul(build.add(mine, I64(1)), items), ranges), first)
            counter = self.at(self._table, self.times(mine, LINE), 8 * NEXT_ITEM)
            look, take, body, after = (build.append_basic_block(name) for name in ("look", "take", "item", "done"))
            build.branch(look)
            build.position_at_end(look)
            taken = build.load_atomic(counter, "monotonic", 8, typ=I64)  # a line that is only read stays shared
            build.cbranch(build.icmp_unsigned("<", taken, size), take, after)
            build.position_at_end(take)
            number = build.atomic_rmw("add", counter, I64(1), "monotonic")
            build.cbranch(build.icmp_unsigned("<", number, size), body, after)
            build.position_at_end(body)
            yield build.add(first, number)
            self.store(build.add(self.load(finished, I64, 8), I64(1)), finished, 8)
            build.branch(take)
            build.position_at_end(after)
        done = self.load(finished, I64, 8)
        with build.if_then(build.icmp_unsigned(">", done, I64(0))):
            # Once for all items: who waits for the operation then sees everything that they wrote.
            build.atomic_rmw("add", self._table, done, "release")

    @contextmanager
    def patches(self) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Take what `patch_items` counts: gives a plane, the first of its rows, and the one behind the last."""
        build, given = self.builder, self.arguments
        planes, rows, bands = (given[field] for field in PATCH_FIELDS)
        blocks = build.udiv(self.load(self.at(self._table, 8 * ITEMS), I64, 8), bands)

        def ends(part: ir.Value, parts: ir.Value, whole: ir.Value) -> tuple[ir.Value, ir.Value]:
            first, last = build.mul(part, whole), build.mul(build.add(part, I64(1)), whole)
            return build.udiv(first, parts), build.udiv(last, parts)

        with self.items() as item:
            first, last = ends(build.udiv(item, blocks), bands, rows)
            with self.loop(*ends(build.urem(item, blocks), blocks, planes)) as plane:
                yield plane, first, last

    @property
    def layout(self) -> "TableLayout":
        """Of the tables that the operation takes."""
        return TableLayout(self.fields)


@dataclass(frozen=True)
class TableLayout:
    """What stands where in an operation's table.

    Attributes:
        fields: names of what stands behind the counters.
    """

    fields: tuple[str, ...]

    def place(self, field: str) -> int:
        """Where a field stands in a table."""
        return FIRST_FIELD + self.fields.index(field)

    def table(self, items: int, **values: int) -> np.ndarray:
        """The table for one use of the operation: int64."""
        words = FIRST_FIELD + len(self.fields)
        memory = np.zeros(words + LINE // 8, np.int64)
        start = -memory.ctypes.data % LINE // 8
        table = memory[start : start + words]
        table[ITEMS:] = [items, *(values[field] for field in self.fields)]
        return table


def number_of_ranges(build: Any, items: ir.Value, threads: ir.Value) -> ir.Value:
    """Write code that gives the number of ranges of so many items for so many threads."""
    ranges = build.select(build.icmp_unsigned("<", threads, I64(MOST_RANGES)), threads, I64(MOST_RANGES))
    return build.select(build.icmp_unsigned("<", items, ranges), items, ranges)


def patch_items(planes: int, rows: int, threads: int) -> dict[str, int]:
    """Number of items, and the fields, of an operation over planes that several threads share by bands of rows.

    Args:
        planes: in all.
        rows: of each plane.
        threads: that will run it, at the most.

    Example:
        >>> patch_items(planes=256, rows=13, threads=2)
        {'items': 16, 'planes': 256, 'rows': 13, 'bands': 2}
        >>> patch_items(planes=256, rows=13, threads=1)
        {'items': 256, 'planes': 256, 'rows': 13, 'bands': 1}
    """
    bands = max(1, min(threads, rows, MOST_RANGES))
    blocks = planes if threads == 1 else min(planes, _BLOCKS_OF_PLANES * -(-threads // bands))
    return {"items": bands * blocks, "planes": planes, "rows": rows, "bands": bands}
