"""The published row beside ours: what is found in the record, what is given, what is unknown."""

import dataclasses

from spokeshave.report.published import kept_counts, published_rows
from spokeshave.report.run_record import RunRecord


def test_ours_is_found_in_the_record(record: RunRecord) -> None:
    paper = {
        "label": "Table 1",
        "baseline": 0.009,
        "error": 0.01,
        "filters": "3-12",
        "channels": (1, 3),
        "columns": "7-14",
        "neurons": "1-2",
        "layers": 2,
        "note": "no ReLU",
    }
    rows = published_rows(dataclasses.replace(record, paper=paper))
    assert rows == [
        ("test error before", "0.90 %", "0.92 %"),
        ("test error", "1.00 %", "0.98 %"),
        ("filters", "3-12", "4-12"),
        ("channels", "1-3", "1-4"),
        ("columns", "7-14", "21-88"),
        ("neurons", "1-2", "21-4-12-180-10"),
        ("layers left", "2", "4"),
        ("note", "no ReLU", ""),
    ]


def test_ours_may_be_given(record: RunRecord) -> None:
    paper = {"speedup": {"published": "7.44×", "ours": 5.5}, "error": None}
    rows = published_rows(dataclasses.replace(record, paper=paper, shrink=None))
    assert rows == [("speedup of layers", "7.44×", "5.5"), ("test error", "", "0.98 %")]


def test_flops_are_the_share_that_is_left(record: RunRecord) -> None:
    small, dense = record.final.measurement.flops, record.baseline.measurement.flops
    rows = published_rows(dataclasses.replace(record, paper={"flops": 0.5, "speedup": "2-3"}))
    assert rows[0] == ("FLOPs left", "50.00 %", f"{100 * small / dense:.2f} %")
    assert rows[1][2].count("×") == 2


def test_projections_of_shortcuts_are_no_layers(record: RunRecord) -> None:
    layers = [
        {"name": "a", "weight_shape_before": [4, 4, 3, 3]},
        {"name": "b", "weight_shape_before": [4, 4, 3, 3]},
        {"name": "projection", "weight_shape_before": [4, 4, 1, 1]},
        {"name": "fc", "weight_shape_before": [10, 4]},
    ]
    shrunk = dataclasses.replace(record, paper={"layers": 2}, shrink={"layers": layers, "removed_branches": ["b"]})
    assert published_rows(shrunk) == [("layers left", "2", "2")]


def test_nothing_is_published(record: RunRecord) -> None:
    assert published_rows(dataclasses.replace(record, paper=None)) == []


def test_kept_counts_are_those_of_the_shrink_report(record: RunRecord) -> None:
    kept = kept_counts(record)
    assert (kept["filters"], kept["channels"], kept["columns"], kept["layers"]) == ("4-12", "1-4", "21-88", "4")
