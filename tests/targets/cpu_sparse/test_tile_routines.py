"""Routines of a tile: all that a program may call is there and can be assembled."""

import pytest

from sparse_cases import X86_SETS
from spokeshave.jit.assembler import assemble_routines
from spokeshave.targets.cpu_sparse.tap_shapes import SINGLE, Tile
from spokeshave.targets.cpu_sparse.tile_routines import TRANSITIONS, Block, Pitches, write_routines
from spokeshave.targets.cpu_sparse.x86_instructions import X86Instructions


@pytest.mark.parametrize("vectors", X86_SETS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("residual", [0, 4096])
def test_every_label_has_code(vectors, rectify, residual):
    code = X86Instructions(vectors)
    block = Block(Tile(2, 3), 1, rectify)
    shapes = [SINGLE, ((0, 0), (0, 1))]
    macros = [((0, 0),), ((1, 0),), ((1, 0), (0, 0))]
    labels = write_routines(code, block, Pitches(640, 640, 6400, residual, residual * 10), shapes, macros)
    text, places = assemble_routines(code.lines)
    assert list(places) == labels
    assert len(labels) == len(macros) + 2 + len(TRANSITIONS) == len(set(places.values()))
    assert all(0 <= place < len(text) and place % 16 == 0 for place in places.values())
    fused = [line for line in code.lines if "fmadd" in line or "mulps" in line]
    assert len(fused) == 6 * (1 + 2 + 3)
