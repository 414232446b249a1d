import doctest

import pytest
import sparse_conv_bars
from sparse_conv_bars import Cell, against_authors, against_better, bars, fastest_against, middle, scaling, ssl_table


def cell(layer: str, batch: int = 16, threads: int = 1, weights: str = "l1_0.56256", **changed: object) -> Cell:
    known = {
        "weights": weights,
        "layer": layer,
        "batch": batch,
        "threads": threads,
        "nonzeros": 10,
        "flops": 20.0,
        "density": 0.1,
        "peak_share": 0.6,
        "fastest_share": 0.6,
        "seconds": {"spokeshave": 1.0, "openvino": 4.0},
        "wall_s": {"spokeshave": 1.0},
        "least_wall_s": {"spokeshave": 2.0 / threads},
        "fastest_s": {"spokeshave": 1.0, "deepsparse": 1.5, "openvino": 3.0, "torch": 5.0},
        "ratio": {"deepsparse": (2.0, 0.1), "openvino": (4.0, 0.2)},
        "best_dense": "openvino",
        "problems": {},
    }
    return Cell(**(known | changed))  # type: ignore[arg-type]


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(sparse_conv_bars)
    assert result.attempted > 0 and not result.failed


def test_the_authors_kernel_is_derived_from_the_published_times() -> None:
    # conv5_2, batch 16: 1.71 ms against DeepSparse's 1.32 on one thread, 0.845 against 0.735 on two.
    assert against_authors(cell("conv5_2")) == pytest.approx(2.0 * 1.71 / 1.32)
    assert against_authors(cell("conv5_2", threads=2)) == pytest.approx(2.0 * 0.845 / 0.735)
    assert against_better(cell("conv5_2")) == 2.0
    assert against_better(cell("conv3")) == pytest.approx(2.0 * 3.27 / 4.53)
    assert against_authors(cell("conv3", weights="ssl_0.54214")) is None
    assert against_authors(cell("conv3", ratio={})) is None


def test_a_missing_value_has_no_mean() -> None:
    assert middle([1.0, 4.0]) == pytest.approx(2.0)
    assert middle([1.0, None]) is None
    assert middle([]) is None


def test_the_fastest_calls_are_compared_with_the_fastest_rival() -> None:
    assert fastest_against(cell("conv3"), ["openvino", "torch"]) == 3.0
    assert fastest_against(cell("conv3"), ["onnxruntime"]) is None


def test_scaling_pairs_one_thread_with_two() -> None:
    both = [cell("conv3"), cell("conv3", threads=2), cell("conv4_1")]
    assert scaling(both) == {("l1_0.56256", "conv3", 16): 2.0}


def test_ssl_sums_the_groups_of_a_layer() -> None:
    names = ["conv1", "conv2_1", "conv2_2", "conv3", "conv4_1", "conv4_2", "conv5_1", "conv5_2"]
    times = {"conv1": 1.0, "conv2_2": 3.0}
    cells = [
        cell(name, weights="ssl_0.54214", seconds={"openvino": times.get(name, 4.0), "spokeshave": 1.0})
        for name in names
    ]
    # conv1 1/1, conv2 (4 + 3)/2, conv3 4/1, conv4 8/2, conv5 8/2
    assert ssl_table(cells) == (pytest.approx((1 + 3.5 + 4 + 4 + 4) / 5), pytest.approx((1 + 7 + 4 + 8 + 8) / 8))
    assert ssl_table(cells[1:]) is None


def test_bars_say_met_missed_and_not_measured() -> None:
    found = {bar.what: bar for bar in bars([cell("conv3"), cell("conv4_1", peak_share=0.4)])}
    share = found["share of the FMA peak, batch 16, 1 thread"]
    assert share.got == pytest.approx((0.6 * 0.4) ** 0.5)
    assert share.verdict == "missed"
    assert found["times faster than DeepSparse on the worst layer, batch 16, 1 thread"].verdict == "met"
    alone = {bar.what: bar.verdict for bar in bars([cell("conv3", ratio={})])}
    assert alone["times faster than DeepSparse on the worst layer, batch 16, 1 thread"] == "not measured"
