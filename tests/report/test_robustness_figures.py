"""Figures of robustness say the numbers they were given."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.report.image_gallery import picture_of
from spokeshave.report.robustness_figures import (
    AttackedNetwork,
    adversarial_gallery,
    strength_chart,
    transfer_table,
    zones_table,
)
from spokeshave.threats.working_zones import WorkingZones

STRENGTHS = [0.0, 0.1, 0.3]
ONE = AttackedNetwork("mixed", STRENGTHS, [0.9, 0.8, 0.7], [0.9, 0.7, 0.4], [0.65], [0.1])
TWO = AttackedNetwork("plain", STRENGTHS, pgd=[0.95, 0.1, 0.0])


def test_each_attack_has_its_look_and_each_network_its_colour():
    chart = strength_chart("t", [ONE, TWO])
    seen = [(curve.label, curve.dashed, curve.points, curve.group, curve.ys) for curve in chart.curves]
    assert seen == [
        ("mixed, PGD", False, False, 0, [0.9, 0.7, 0.4]),
        ("mixed, FGSM", True, False, 0, [0.9, 0.8, 0.7]),
        ("mixed, AutoAttack", False, True, 0, [0.65]),
        ("plain, PGD", False, False, 1, [0.95, 0.1, 0.0]),
    ]
    assert chart.percent and chart.curves[2].xs == [0.1]
    with pytest.raises(InvalidArgument, match="mixed, FGSM: expected 3 accuracies, got 1"):
        strength_chart("t", [AttackedNetwork("mixed", STRENGTHS, [0.9])])


def test_zones_are_framed_where_they_are():
    zones = WorkingZones(("0", "0.1"), (0.0, 0.1), ((0.99, 0.2), (0.9, 0.8)))
    table = zones_table("t", zones)
    assert table.values == [[0.99, 0.2], [0.9, 0.8]] and table.outlined == [[True, False], [False, True]]
    assert table.column_names == ["0", "0.1"] and "at most 1 % below" in table.framed


def test_transfer_is_framed_on_the_diagonal():
    table = transfer_table("t", ["a", "b"], torch.tensor([[0.25, 0.5], [0.75, 0.125]]))
    assert table.values == [[0.25, 0.5], [0.75, 0.125]] and table.outlined == [[True, False], [False, True]]
    for names, values in (([], torch.zeros(0, 0)), (["a"], torch.zeros(1, 2))):
        with pytest.raises(InvalidArgument, match="t: expected"):
            transfer_table("t", names, values)


def test_attacked_images_say_the_class_that_is_seen_and_whether_it_is_wrong():
    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 2])
    content = adversarial_gallery("t", {"0.1": (images, torch.tensor([0, 1]))}, labels, ["zero", "one"])
    assert content.rows[0].pictures == [picture_of(images[0], "zero"), picture_of(images[1], "one", True)]
    plain = adversarial_gallery("t", {"0.1": (images, torch.tensor([0, 2]))}, labels)
    assert [picture.caption for picture in plain.rows[0].pictures] == ["0", "2"]
    with pytest.raises(InvalidArgument, match="t, 0.1: expected 2 images and classes, got 2 and 1"):
        adversarial_gallery("t", {"0.1": (images, torch.tensor([0]))}, labels)
