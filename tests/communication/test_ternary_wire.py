"""How a bucket is cut into pieces; the exchanges themselves run among processes in test_terngrad."""

import pytest
import torch

from spokeshave.communication.digit_packing import LANES, Pack, code_packing
from spokeshave.communication.ternary_wire import Wire, cut_pieces


@pytest.mark.parametrize("pack", Pack)
@pytest.mark.parametrize("sizes", [(), (1,), (5000,), (100, 1, 0, 4000, 999, 33), (127, 129, 128), (10_000, 10_000)])
@pytest.mark.parametrize("most", [256, 1000, 100_000])
def test_pieces_hold_every_element_once_in_blocks_of_its_own(pack: Pack, sizes: tuple[int, ...], most: int) -> None:
    packing = code_packing(pack)
    pieces = cut_pieces(sizes, packing, most)
    seen = [torch.zeros(size, dtype=torch.long) for size in sizes]
    for piece in pieces:
        row = 0
        for segment in piece.segments:
            place = segment.place
            assert place.first_row == row and place.first_element % packing.block_digits == 0
            seen[segment.layer][place.first_element : place.first_element + place.elements] += 1
            row += -(-place.elements // packing.block_digits) * packing.digits
        assert row == piece.rows
        assert sum(segment.place.elements for segment in piece.segments) <= most + packing.block_digits
    assert all(bool((layer == 1).all()) for layer in seen)
    assert len(pieces) <= max(1, sum(sizes) // most * 2 + 1)


def test_parts_are_views_of_the_layers() -> None:
    layers = [torch.arange(300.0), torch.arange(5.0)]
    pieces = cut_pieces((300, 5), code_packing(Pack.TWO_BIT), 200)
    assert [[len(part) for part in piece.parts(layers)] for piece in pieces] == [[256], [44, 5]]
    pieces[1].parts(layers)[0].zero_()
    assert float(layers[0][256:].sum()) == 0
    assert pieces[1].of(torch.tensor([7.0, 8.0])).tolist() == [7.0, 8.0]
    assert pieces[0].rows * LANES == 256


def test_auto_is_a_gather_for_two_and_a_server_on_every_worker_for_more() -> None:
    assert [Wire.AUTO.chosen(workers) for workers in (1, 2, 3, 8)] == [Wire.ALLGATHER] * 2 + [Wire.ALLTOALL] * 2
    assert Wire.LANES.chosen(2) is Wire.LANES
