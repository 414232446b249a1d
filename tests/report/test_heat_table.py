"""Tables of a record as heat maps: every value and frame is drawn, damaged ones are refused."""

import xml.etree.ElementTree as ET
from dataclasses import asdict, replace

import pytest

from spokeshave.errors import DataError
from spokeshave.report.heat_table import HeatTable, heat_table_figure, heat_table_from

TABLE = HeatTable(
    "Accuracy", "trained at", ["none", "0.1"], "attacked at", ["0", "0.1", "0.3"],
    [[0.99, 0.4, 0.0], [0.95, 0.8, 0.2]], [[True, False, False], [False, True, True]], "best",
)  # fmt: skip


def test_values_depths_names_and_frames_are_those_of_the_table():
    figure = heat_table_figure(TABLE)
    root = ET.fromstring(str(figure.chart))
    cells = [cell for cell in root.iter("rect") if len(cell)]
    depths = [float(cell.get("style", "").removeprefix("--depth:")) for cell in cells]
    assert depths == pytest.approx([0.99, 0.4, 0, 0.95, 0.8, 0.2])
    assert cells[4][0].text == "trained at 0.1, attacked at 0.1: 80.00 %"
    frames = [(rect.get("x"), rect.get("y")) for rect in root.iter("rect") if rect.get("class") == "frame"]
    framed = [
        (f"{float(cell.get('x', '')) + 1.5:.1f}", f"{float(cell.get('y', '')) + 1.5:.1f}")
        for cell, one in zip(cells, (flag for row in TABLE.outlined for flag in row), strict=True)
        if one
    ]
    assert [tuple(map(float, one)) for one in frames] == [
        pytest.approx(tuple(map(float, one)), abs=0.11) for one in framed
    ]
    assert figure.legend[0].label == "best"


def test_names_of_rows_have_room():
    long = replace(TABLE, row_names=["a rather long name of an arm", "b"])
    root = ET.fromstring(str(heat_table_figure(long).chart))
    first = min(float(cell.get("x", "")) for cell in root.iter("rect") if len(cell))
    name = next(text for text in root.iter("text") if text.text == "a rather long name of an arm")
    assert first > float(name.get("x", "")) > 6 * len(name.text or "")


def test_without_frames_there_is_no_legend():
    figure = heat_table_figure(replace(TABLE, outlined=[], framed=""))
    assert figure.legend == () and 'class="frame"' not in figure.chart


def test_a_record_reads_back():
    assert heat_table_from(asdict(TABLE), "run.json") == TABLE


@pytest.mark.parametrize(
    "change",
    [
        {"values": [[0.5]]}, {"values": [[0.99, 0.4, 0.0], [0.95, 0.8, 20]]}, {"values": [[True, False, True]] * 2},
        {"values": [[0.99, 0.4, 0.0], [0.95, 0.8, float("nan")]]}, {"outlined": [[True]]},
        {"outlined": [[1, 0, 0]] * 2},
        {"row_names": []}, {"column_names": ["a", "b", 3]}, {"title": None}, {"more": 1}, {"values": 7},
    ],
)  # fmt: skip
def test_damaged_records_are_refused(change):
    with pytest.raises(DataError, match="run.json: tables"):
        heat_table_from(asdict(TABLE) | change, "run.json")
