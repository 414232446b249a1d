import io
import json

from rich.console import Console

from spokeshave.rewrites import LayerChange, ShrinkReport

CHANGE = LayerChange("conv1", "Conv2d", (20, 1, 5, 5), (5, 1, 5, 5), 5, 20, 1, 1, 12, 25, True, "a remark")


def test_table_shows_kept_of_total():
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(ShrinkReport((CHANGE,), ("conv1",), ("a note",), 1e-7, 500, 125).table())
    text = console.export_text()
    for part in ("conv1", "5/20", "12/25", "5x1x5x5", "a remark, removed, squeezed", "500 -> 125", "a note"):
        assert part in text


def test_dict_is_plain():
    report = ShrinkReport((CHANGE,), ("conv1",), (), 1e-7, 500, 125)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.to_dict()["layers"][0]["weight_shape_after"] == [5, 1, 5, 5]  # type: ignore[index]
