"""Accuracy by copies and spikes: means, corners and what is enough, worked out by hand; maps share one scale."""

import xml.etree.ElementTree as ET

import pytest
import torch

from spokeshave.report.deployed_accuracy import DeployedAccuracy, Enough, accuracy_maps, counted

DRAWS = torch.tensor(
    [
        [[0.80, 0.88, 0.90], [0.86, 0.90, 0.93], [0.92, 0.93, 0.94]],
        [[0.84, 0.90, 0.92], [0.90, 0.92, 0.95], [0.94, 0.95, 0.95]],
    ],
    dtype=torch.float64,
)


def test_means_spreads_and_the_best_of_two_draws() -> None:
    accuracy = DeployedAccuracy(0.97, DRAWS)
    assert accuracy.at(1, 1) == pytest.approx((0.82, 0.02 * 2**0.5))
    assert accuracy.at(2, 3) == pytest.approx((0.94, 0.01 * 2**0.5))
    assert accuracy.best == pytest.approx(0.945)
    assert accuracy.corners() == [(1, 1), (1, 3), (3, 1), (3, 3)]


def test_one_draw_has_no_spread_and_one_copy_two_corners() -> None:
    accuracy = DeployedAccuracy(0.9, DRAWS[:1, :1])
    assert accuracy.at(1, 2) == pytest.approx((0.88, 0)) and accuracy.corners() == [(1, 1), (1, 3)]
    assert DeployedAccuracy(0.9, DRAWS[:1, :1, :1]).corners() == [(1, 1)]


@pytest.mark.parametrize(
    ("accuracy", "enough"),
    [(0.82, (1, 1)), (0.8201, (2, 2)), (0.88, (2, 2)), (0.91, (3, 3)), (0.9101, (3, None)), (0.94, (None, None))],
)
def test_enough_is_the_first_that_reaches(accuracy: float, enough: tuple) -> None:
    """Means of one spike: 82, 88, 93; of one copy: 82, 89, 91."""
    assert DeployedAccuracy(0.97, DRAWS).enough(accuracy) == Enough(*enough)


def test_the_best_counts_as_reached_within_a_tenth_of_a_point() -> None:
    line = torch.tensor([[[0.9, 0.9979, 0.998, 0.999]]], dtype=torch.float64)
    assert DeployedAccuracy(1.0, line).enough() == Enough(None, 3)
    assert DeployedAccuracy(1.0, line.mT).enough() == Enough(3, None)


def test_numbers_are_whole_in_a_record() -> None:
    record = DeployedAccuracy(0.97, DRAWS).to_dict()
    assert record["float"] == 0.97 and record["draws"] == 2 and record["best"] == pytest.approx(0.945)
    assert record["enough"] == {"copies": None, "spikes": None}
    assert record["mean"][1][2] == pytest.approx(0.94) and record["spread"][0][0] == pytest.approx(0.02 * 2**0.5)


def titles(chart: object) -> list[str]:
    return [title.text or "" for title in ET.fromstring(str(chart)).iter("title")]


def test_two_networks_share_a_scale_and_their_difference_is_the_second_less_the_first() -> None:
    before, after = DeployedAccuracy(0.97, DRAWS), DeployedAccuracy(0.97, DRAWS + 0.03)
    maps = accuracy_maps({"without": before, "with": after})
    assert [one.title for one in maps] == ["Accuracy without, %", "Accuracy with, %", "Gained by biasing, points"]
    assert titles(maps[0].chart)[0] == "copies 1, spikes per frame 1: 82.00 %"
    assert titles(maps[1].chart)[5] == "copies 2, spikes per frame 3: 97.00 %"
    assert {title.rpartition(": ")[2] for title in titles(maps[2].chart)} == {"+3.00 points"}
    for one in maps[:2]:
        words = [text.text for text in ET.fromstring(str(one.chart)).iter("text")]
        assert "82.0 %" in words and "97.5 %" in words


def test_of_many_copies_some_are_drawn_each_with_its_own_value() -> None:
    values = torch.arange(1, 41, dtype=torch.float64)[None, :, None] / 100
    (one,) = accuracy_maps({"the network": DeployedAccuracy(0.5, values)})
    assert one.title == "Accuracy, %"
    assert titles(one.chart) == [
        f"copies {n}, spikes per frame 1: {n:.2f} %" for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40)
    ]
    assert accuracy_maps({}) == []


def test_things_are_counted() -> None:
    assert [counted(n, "copy") for n in (1, 2, None)] == ["1 copy", "2 copies", "none"]
    assert counted(1234, "core") == "1,234 cores" and counted(None, "copy", "more") == "more"
