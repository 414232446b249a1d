"""The per-layer table: layers matched by name, removed ones, parts that a rewrite put inside, sums."""

import dataclasses

import pytest

from spokeshave.measure import Comparison, LayerCost, LayerTime, Measurement
from spokeshave.report.layer_rows import Kept, layer_rows, total_row
from spokeshave.report.run_record import Outcome, RunRecord


def outcome(*layers: LayerCost) -> Outcome:
    flops = sum(layer.flops for layer in layers)
    parameters = sum(layer.parameters for layer in layers)
    return Outcome(0.9, 0.1, Measurement(parameters, parameters, 4 * parameters, flops, layers, ()))


@pytest.fixture
def run(record: RunRecord) -> RunRecord:
    before = outcome(
        LayerCost("a", "Conv2d", 100, 1000, None),
        LayerCost("a.inner", "Linear", 7, 70, None),
        LayerCost("b", "Conv2d", 50, 400, None),
        LayerCost("c", "Linear", 10, 20, None),
        LayerCost("norm", "BatchNorm2d", 8, 0, None),
        LayerCost("(model)", "Net", 0, 0, None),
    )
    after = outcome(
        LayerCost("a", "Conv2d", 10, 100, None),
        LayerCost("a.inner", "Linear", 7, 70, None),
        LayerCost("c.gather", "Gather", 0, 4, None),
        LayerCost("c.product", "Product", 5, 6, None),
        LayerCost("(model)", "GraphModule", 0, 0, None),
    )
    times = (
        LayerTime("a", "Conv2d", 4e-3, 1e-3),
        LayerTime("b", "Conv2d", 2e-3, None),
        LayerTime("c", "Linear", 1e-3, None),
        LayerTime("c.gather", "Gather", None, 2e-4),
        LayerTime("c.product", "Product", None, 3e-4),
        LayerTime("norm", "BatchNorm2d", 1e-4, None),
        LayerTime("(model)", "Net", 1e-4, 5e-5),
    )
    shrink = {"layers": [{"name": "a", "filters_kept": 1, "filters_total": 10, "note": "folded"}]}
    return dataclasses.replace(record, baseline=before, final=after, comparison=Comparison((), times, 1), shrink=shrink)


def test_layers_are_matched_by_name(run: RunRecord) -> None:
    rows = {row.name: row for row in layer_rows(run)}
    assert list(rows) == ["a", "a.inner", "b", "c", "all others"]
    assert (rows["a"].flops.before, rows["a"].flops.after, rows["a"].flops.ratio) == (1000, 100, 10.0)
    assert rows["a"].time is not None and rows["a"].time.ratio == pytest.approx(4.0)
    assert rows["a"].filters == Kept(1, 10) and rows["a"].channels is None
    assert rows["a"].note == "folded" and rows["a"].kind == "Conv2d"
    assert rows["a.inner"].time is None


def test_removed_layers(run: RunRecord) -> None:
    row = next(row for row in layer_rows(run) if row.name == "b")
    assert row.removed and row.flops.after == 0 and row.flops.ratio is None
    assert row.time is not None and (row.time.before, row.time.after) == (2e-3, 0.0)


def test_parts_inside_a_rewritten_layer_are_added_up(run: RunRecord) -> None:
    row = next(row for row in layer_rows(run) if row.name == "c")
    assert (row.flops.after, row.parameters.after) == (10, 5)
    assert row.time is not None and row.time.after == pytest.approx(5e-4)
    assert row.kind == "Linear → Gather + Product" and not row.removed


def test_the_rest_is_one_row_and_sums_are_whole(run: RunRecord) -> None:
    rows = layer_rows(run)
    rest = rows[-1]
    assert rest.kind == "BatchNorm2d, outside layers"
    assert rest.parameters.before == 8
    assert rest.time is not None and (rest.time.before, rest.time.after) == pytest.approx((2e-4, 5e-5))
    total = total_row(rows)
    assert total["flops"] is not None and total["parameters"] is not None
    assert (total["flops"].before, total["flops"].after) == (
        run.baseline.measurement.flops,
        run.final.measurement.flops,
    )
    assert (total["parameters"].before, total["parameters"].after) == (
        run.baseline.measurement.parameters,
        run.final.measurement.parameters,
    )


def test_without_a_comparison_each_network_s_own_times_are_taken(record: RunRecord) -> None:
    rows = layer_rows(dataclasses.replace(record, comparison=None))
    own = {layer.name: layer.latency_s for layer in record.baseline.measurement.layers}
    assert rows[0].time is not None and rows[0].time.before == own["conv1"]
    assert total_row([])["time"] is None


def test_scales_are_the_largest_layer(record: RunRecord) -> None:
    rows = [row for row in layer_rows(record) if row.name != "all others"]
    assert {row.flops.scale for row in rows} == {max(row.flops.before for row in rows)}


def test_bars_fit_where_a_layer_became_slower(run: RunRecord) -> None:
    assert run.comparison is not None
    slower = tuple(dataclasses.replace(t, after_s=9e-3 if t.name == "a" else t.after_s) for t in run.comparison.layers)
    rows = layer_rows(dataclasses.replace(run, comparison=Comparison((), slower, 1)))
    assert [row.time.scale for row in rows if row.time] == [9e-3, 9e-3, 9e-3, 0.0], "the others have no bar"
