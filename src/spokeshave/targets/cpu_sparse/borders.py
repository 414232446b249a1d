"""Borders: the zeros around planes of batch lanes that a convolution's padding reads."""

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import splat


@generated
def zero_border(vectors: VectorSet) -> OperationLoops:
    """Operation whose items are planes.

    Fields: target_at, target_plane, target_row, rows and columns (with the border), above and beside (width of it).
    """
    loops = OperationLoops(
        "zero_border", vectors, ["target_at", "target_plane", "target_row", "rows", "columns", "above", "beside"]
    )
    given, build = loops.arguments, loops.builder
    zero = splat(loops, 0.0)
    with loops.items() as plane:
        start = loops.at(given["target_at"], loops.times(plane, given["target_plane"]))
        below = build.sub(given["rows"], given["above"])
        right = build.sub(given["columns"], given["beside"])
        for first, last in ((0, given["above"]), (below, given["rows"])):
            with loops.loop(first, last) as row, loops.loop(0, given["columns"]) as column:
                at = loops.at(start, loops.times(row, given["target_row"]), loops.times(column, vectors.bytes))
                loops.store(zero, at, vectors.bytes)
        with loops.loop(given["above"], below) as row:
            line = loops.at(start, loops.times(row, given["target_row"]))
            for first, last in ((0, given["beside"]), (right, given["columns"])):
                with loops.loop(first, last) as column:
                    loops.store(zero, loops.at(line, loops.times(column, vectors.bytes)), vectors.bytes)
    return loops
