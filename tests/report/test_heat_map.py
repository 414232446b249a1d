"""Heat maps: depths, numbers and places are those of the values; what is spoken says the corners."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.report.figures import Figure
from spokeshave.report.heat_map import Side, difference_map, heat_map, round_steps

ROWS, COLUMNS = Side("copies", (1, 2, 3)), Side("spikes", (1, 4))
VALUES = torch.tensor([[0.5, 0.6], [0.75, 0.9], [0.55, 0.7]])


def parsed(figure: Figure) -> ET.Element:
    return ET.fromstring(str(figure.chart))


def squares(figure: Figure) -> list[ET.Element]:
    """Those of values, not of the scale."""
    return [cell for cell in parsed(figure).iter("rect") if len(cell)]


def depth(cell: ET.Element) -> float:
    return float(cell.get("style", "").removeprefix("--depth:"))


def test_the_depth_of_each_square_is_its_place_between_the_least_and_the_greatest() -> None:
    cells = squares(heat_map("t", VALUES, ROWS, COLUMNS))
    assert [depth(cell) for cell in cells] == pytest.approx([0, 0.25, 0.625, 1, 0.125, 0.5], abs=0.006)
    titles = [cell[0].text for cell in cells]
    assert titles[3] == "copies 2, spikes 4: 90.00 %" and titles[4] == "copies 3, spikes 1: 55.00 %"


def test_rows_go_down_and_columns_to_the_right_without_gap_or_overlap() -> None:
    boxes = [
        [float(cell.get(side, "")) for side in ("x", "y", "width", "height")]
        for cell in squares(heat_map("t", VALUES, ROWS, COLUMNS))
    ]
    xs, ys = sorted({box[0] for box in boxes}), sorted({box[1] for box in boxes})
    assert [(xs.index(x), ys.index(y)) for x, y, _, _ in boxes] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert xs[1] - xs[0] == pytest.approx(boxes[0][2], abs=0.11) and ys[2] - ys[1] == pytest.approx(
        boxes[0][3], abs=0.11
    )


def test_numbers_stand_in_the_squares_where_there_is_room() -> None:
    texts = [
        text for text in parsed(heat_map("t", VALUES, ROWS, COLUMNS)).iter("text") if "value" in text.get("class", "")
    ]
    assert [text.text for text in texts] == ["50.0", "60.0", "75.0", "90.0", "55.0", "70.0"]
    many = Side("n", range(40))
    crowded = parsed(heat_map("t", torch.rand(40, 40), many, many))
    assert not [text for text in crowded.iter("text") if "value" in text.get("class", "")]
    assert len([cell for cell in crowded.iter("rect") if len(cell)]) == 1600


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (70, 2), (16, 16), (200, 100)])
def test_nothing_leaves_the_frame(shape: tuple[int, int]) -> None:
    rows, columns = (Side("n", range(1, size + 1)) for size in shape)
    svg = parsed(heat_map("t", torch.rand(shape), rows, columns))
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    assert width <= 490
    for cell in svg.iter("rect"):
        assert float(cell.get("x", "")) + float(cell.get("width", "")) <= width + 1
        assert float(cell.get("y", "")) + float(cell.get("height", "")) <= height
    for text in svg.iter("text"):
        assert 0 <= float(text.get("x", "")) <= width and 0 <= float(text.get("y", "")) <= height


def test_limits_put_two_maps_on_one_scale() -> None:
    cells = squares(heat_map("t", VALUES, ROWS, COLUMNS, limits=(0.0, 1.0)))
    assert [depth(cell) for cell in cells] == pytest.approx([0.5, 0.6, 0.75, 0.9, 0.55, 0.7])
    words = [text.text for text in parsed(heat_map("t", VALUES, ROWS, COLUMNS, (0.0, 1.0))).iter("text")]
    assert "0.0 %" in words and "100.0 %" in words


def test_differences_have_two_colours_that_meet_at_zero() -> None:
    figure = difference_map("t", torch.tensor([[0.02, -0.04], [0.0, 0.01]]), Side("a", (1, 2)), Side("b", (1, 2)))
    cells = squares(figure)
    assert [depth(cell) for cell in cells] == [0.5, 1, 0, 0.25]
    assert [cell.get("class") for cell in cells] == ["cell", "cell less", "cell", "cell"]
    assert [cell[0].text for cell in cells][:2] == ["a 1, b 1: +2.00 points", "a 1, b 2: −4.00 points"]
    scale = [cell for cell in parsed(figure).iter("rect") if not len(cell)]
    assert {cell.get("class") for cell in scale[:12]} == {"cell less"} and depth(scale[12]) == 0
    assert {cell.get("class") for cell in scale[12:]} == {"cell"} and depth(scale[0]) == depth(scale[-1]) == 1


def test_what_is_spoken_says_the_corners_and_the_range() -> None:
    label = parsed(heat_map("Accuracy", VALUES, ROWS, COLUMNS)).get("aria-label", "")
    assert label.startswith(
        "Accuracy. copies 1, spikes 1: 50.00 %; copies 1, spikes 4: 60.00 %; copies 3, spikes 1: 55.00 %"
    )
    assert label.endswith("from 50.00 % to 90.00 %")
    assert (
        parsed(heat_map("t", torch.ones(1, 1), Side("a", (1,)), Side("b", (1,)))).get("aria-label", "").count("a 1")
        == 1
    )


def test_equal_values_are_drawn_and_other_shapes_refused() -> None:
    assert {depth(cell) for cell in squares(heat_map("t", torch.ones(3, 2), ROWS, COLUMNS))} == {0.5}
    assert {depth(cell) for cell in squares(difference_map("t", torch.zeros(3, 2), ROWS, COLUMNS))} == {0}
    for draw in (heat_map, difference_map):
        with pytest.raises(InvalidArgument, match=r"expected .* 3 x 2 .* got \(2, 3\)"):
            draw("t", VALUES.T, ROWS, COLUMNS)
    with pytest.raises(InvalidArgument, match="at least one"):
        heat_map("t", torch.zeros(0, 2), Side("a", ()), COLUMNS)


def test_hostile_names_are_text() -> None:
    figure = heat_map("<i>", VALUES, Side("<b>", (1, 2, 3)), Side("&", (1, 4)))
    assert squares(figure)[0][0].text == "<b> 1, & 1: 50.00 %"


@pytest.mark.parametrize("last", [1, 2, 15, 16, 17, 24, 25, 64, 1000])
def test_steps_begin_with_one_end_with_the_last_and_never_more_than_double(last: int) -> None:
    steps = round_steps(last)
    assert steps[0] == 1 and steps[-1] == last and steps == sorted(set(steps)) and len(steps) <= 21
    assert all(b <= 2 * a for a, b in pairwise(steps))
    assert last > 16 or steps == list(range(1, last + 1))


def test_framed_squares_have_a_frame_inside_and_names_of_letters_have_room() -> None:
    rows, columns = Side("arm", ("first", "a much longer name", "c")), Side("at", ("0.05", "0.1"))
    outlined = torch.tensor([[True, False], [False, False], [False, True]])
    root = parsed(heat_map("t", VALUES, rows, columns, outlined=outlined))
    cells = [cell for cell in root.iter("rect") if len(cell)]
    frames = [rect for rect in root.iter("rect") if rect.get("class") == "frame"]
    for frame, cell in zip(frames, (cells[0], cells[5]), strict=True):
        for side in ("x", "y"):
            assert float(frame.get(side, "")) == pytest.approx(float(cell.get(side, "")) + 1.5, abs=0.11)
        assert float(frame.get("width", "")) == pytest.approx(float(cell.get("width", "")) - 3, abs=0.11)
    name = next(text for text in root.iter("text") if text.text == "a much longer name")
    assert float(name.get("x", "")) >= 6 * len("a much longer name")
