"""Labels meet neither points nor one another."""

import random

from spokeshave.report.label_places import place_labels

FRAME = (0.0, 0.0, 460.0, 300.0)


def boxes(places):
    wide = {place: 6.6 * len(place.text) for place in places}
    left = {"start": 0.0, "end": 1.0, "middle": 0.5}
    return [(p.x - left[p.anchor] * wide[p], p.y - 10, p.x + (1 - left[p.anchor]) * wide[p], p.y + 2) for p in places]


def apart(one, other):
    return one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_many_labels_do_not_meet():
    chance = random.Random(0)
    points = [(chance.uniform(0, 460), chance.uniform(0, 300), f"layer{i}.conv") for i in range(40)]
    places = place_labels(points, FRAME)
    found = boxes(places)
    assert 10 < len(places) < 40
    assert all(apart(a, b) for i, a in enumerate(found) for b in found[:i])
    assert all(apart(a, (x - 6, y - 6, x + 6, y + 6)) for a in found for x, y, _ in points)
    assert all(a[0] >= 0 and a[1] >= 0 and a[2] <= 460 and a[3] <= 300 for a in found)


def test_a_point_without_label_only_keeps_its_place_free():
    (place,) = place_labels([(100, 100, "a"), (112, 100, "")], FRAME)
    assert place.anchor == "end"


def test_a_label_that_has_no_place_is_left_out():
    assert place_labels([(50, 50, "much too long for this")], (0, 0, 100, 100)) == []
