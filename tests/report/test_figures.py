"""Figures of a run: which marks, curves, bands and legends a record gives."""

import dataclasses
import xml.etree.ElementTree as ET

from spokeshave.report.figures import Figure, front_figure, training_figures
from spokeshave.report.run_record import RunRecord


def classes(figure: Figure, tag: str) -> list[str]:
    return [item.attrib["class"] for item in ET.fromstring(str(figure.chart)).iter(tag)]


def test_front_has_every_point_before_after_and_the_published_row(record: RunRecord) -> None:
    figure = front_figure(record)
    assert classes(figure, "g") == ["mark sweep"] * 5 + ["mark paper", "mark before", "mark after"]
    assert classes(figure, "polyline") == ["front-line"]


def test_front_without_a_sweep_is_before_and_after(record: RunRecord) -> None:
    figure = front_figure(dataclasses.replace(record, points=[{"label": "no cost"}], paper={"error": None}))
    assert classes(figure, "g") == ["mark before", "mark after"]
    assert classes(figure, "polyline") == []


def test_training_figures_follow_the_history(record: RunRecord) -> None:
    figures = {figure.title: figure for figure in training_figures(record)}
    assert list(figures) == [
        "Loss",
        "Validation accuracy",
        "Filters that are zero",
        "Columns (filter shapes) that are zero",
        "Input channels that are zero",
        "Single weights that are zero",
    ]
    loss = figures["Loss"]
    assert classes(loss, "polyline") == ["line"] * 3 + ["line dashed"] * 3, "curves break between three stages"
    assert classes(loss, "rect") == ["band band-0", "band band-1", "band band-0"]
    assert [entry.label for entry in loss.legend] == ["training", "validation"]
    assert [entry.label for entry in figures["Filters that are zero"].legend] == ["conv1", "conv2", "ip1", "ip2"]


def test_kinds_that_never_become_zero_are_left_out(record: RunRecord) -> None:
    rows = [{"train_loss": 1.0, "sparsity": {"a": {"filters": 0.0, "shapes": 0.5}}}]
    titles = [figure.title for figure in training_figures(dataclasses.replace(record, history={"s": rows}))]
    assert titles == ["Loss", "Columns (filter shapes) that are zero"]


def test_long_legends_name_three(record: RunRecord) -> None:
    layers = {f"layer{index}": {"filters": 0.1} for index in range(20)}
    (figure,) = training_figures(dataclasses.replace(record, history={"s": [{"sparsity": layers}] * 2}))
    assert [entry.label for entry in figure.legend] == ["layer0", "layer10", "layer19"]
    assert len(classes(figure, "polyline")) == 20


def test_no_history_no_figures(record: RunRecord) -> None:
    assert training_figures(dataclasses.replace(record, history={})) == []
    assert training_figures(dataclasses.replace(record, history={"s": []})) == []
