"""Every layer is in the figures; bounds stand where the curve says."""

from cpu_benchmark_cases import needs_generated_code, small_benchmark
from spokeshave.cpu_benchmark.density_sweep import DensityCurve, DensityPoint
from spokeshave.report.cpu_figures import density_figure, prediction_figure, roofline_figure
from spokeshave.targets.cpu_sparse.layer_profile import Timing


@needs_generated_code
def test_the_roofline_has_every_layer_and_every_level_of_memory():
    figure = roofline_figure(small_benchmark())
    assert figure.chart.count('<g class="mark') == 3 and figure.chart.count("<polyline") == 4
    assert all(f"<title>{name}:" in figure.chart for name in ("first", "second", "last"))
    assert [entry.label.split(",")[0] for entry in figure.legend[:4]] == ["L1", "L2", "last-level cache", "memory"]
    assert "of the peak" in figure.chart and figure.title.startswith("Peak ")


@needs_generated_code
def test_predictions_have_a_mark_for_each_path_that_was_measured():
    done = small_benchmark()
    chart = prediction_figure(done).chart
    assert chart.count('<g class="mark') == sum(len(layer.measured) for layer in done.layers)
    assert chart.count("<polyline") == 1


def test_bounds_and_points_of_a_curve():
    points = (DensityPoint(0.1, Timing(4.0, 0, 3), Timing(1.0, 0, 3)),)
    figure = density_figure(DensityCurve("conv", (0.01, 0.1, 1.0), (8.0, 4.0, 0.5), 0.5, 0.02, points))
    labels = [entry.label for entry in figure.legend]
    assert labels == ["predicted", "faster than dense below 50 %", "bound by memory below 2.0 %", "measured"]
    assert figure.chart.count("<polyline") == 3 and "10.0 % nonzero: 4.00×" in figure.chart


def test_bounds_outside_the_curve_are_left_out():
    figure = density_figure(DensityCurve("conv", (0.01, 0.1, 1.0), (8.0, 4.0, 2.0), 1.0, 0.0))
    assert [entry.label for entry in figure.legend] == ["predicted"]
