"""The report as data and as a table, from numbers that can be checked by hand."""

import json

import pytest
from rich.console import Console

from spokeshave.rewrites.low_rank_report import LowRankLayer, LowRankReport

SPLIT = LowRankLayer("conv", "Conv2d", "filters", 2, 3, 12, 0.051, 400.0, 100.0, 2.5, 1.75, 0.1)
WHOLE = LowRankLayer("fc", "Linear", "", 1, None, 8, 0.0, 50.0, 50.0, 0.8, why_whole="its halves take longer")
REPORT = LowRankReport((SPLIT, WHOLE), 1000, 250, 450.0, 150.0, 2.0, 0.01, 1.5, 0.05, ("a remark",))


def printed(report: LowRankReport) -> str:
    console = Console(width=250, record=True, file=None)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_totals():
    assert REPORT.split_layers == (SPLIT,) and REPORT.mean_rank_ratio == pytest.approx(0.25)
    assert json.loads(json.dumps(REPORT.to_dict()))["layers"][0]["rank"] == 3
    assert REPORT.to_dict()["notes"] == ["a remark"]


def test_the_table_says_what_was_split_and_why_not():
    text = printed(REPORT)
    for words in ("1,000 -> 250", "450 -> 150", "predicted 2.00x", "measured 1.50 ± 0.05x", "3/12", "5.10 %", "25 %",
                  "2.50x", "1.75x", "its halves take longer", "a remark"):  # fmt: skip
        assert words in text
    assert "measured 1" not in printed(LowRankReport((SPLIT,), 1, 1, 1.0, 1.0, 1.0, 0.0))
