"""Galleries: pixels come back as they were, wrong ones are framed and said, damaged records are refused."""

import base64
import io
import xml.etree.ElementTree as ET
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.report.image_gallery import Gallery, gallery, gallery_figure, gallery_from, picture_of

GREY, COLOUR = torch.rand(2, 1, 3, 4), torch.rand(3, 3, 4, 4)
ROWS = [("strength 0", GREY, ["7", "3"], [False, True]), ("0.1", COLOUR, ["a", "b", "<c>"], [True, False, True])]


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def parsed(content: Gallery) -> ET.Element:
    return ET.fromstring(str(gallery_figure(content).chart))


@pytest.mark.parametrize("image", [GREY[0], COLOUR[0], torch.zeros(1, 1, 1), torch.ones(3, 2, 2)])
def test_the_png_has_the_images_levels(image):
    found = pixels(picture_of(image).png)
    expected = np.round(image.numpy() * 255).transpose(1, 2, 0)
    assert np.array_equal(found.reshape(expected.shape), expected)


def test_images_of_the_figure_are_those_given_in_reading_order():
    drawn = [
        image.get("href", "").removeprefix("data:image/png;base64,")
        for image in parsed(gallery("t", ROWS)).iter("image")
    ]
    expected = [picture_of(image).png for _, images, *_ in ROWS for image in images]
    assert drawn == expected


def test_places_do_not_overlap_and_lie_inside():
    root = parsed(gallery("t", ROWS))
    _, _, width, height = map(float, root.get("viewBox", "").split())
    boxes = [[float(image.get(side, "")) for side in ("x", "y", "width", "height")] for image in root.iter("image")]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for place, (x, y, w, h) in enumerate(boxes):
        assert all(x + w <= a or a + w <= x or y + h <= b or b + h <= y for a, b, _, _ in boxes[place + 1 :])


def test_what_is_wrong_is_framed_and_said_in_words():
    content = gallery("Attacked", ROWS, "taken for another class")
    frames = [rect.get("class") for rect in parsed(content).iter("rect")]
    assert frames == ["edge", "edge wrong", "edge wrong", "edge", "edge wrong"]
    spoken = parsed(content).get("aria-label")
    assert spoken == "Attacked. strength 0: 7, 3 (wrong); 0.1: a (wrong), b, <c> (wrong)"
    assert [entry.label for entry in gallery_figure(content).legend] == ["taken for another class", "otherwise"]
    assert gallery_figure(gallery("t", ROWS)).legend == ()


def test_long_names_stand_above_their_rows():
    long = [("a name that is far too long for a column beside", GREY, ["", ""], [False, False])]
    short, tall = parsed(gallery("t", ROWS[:1])), parsed(gallery("t", long))
    assert float(tall.get("viewBox", "").split()[3]) > float(short.get("viewBox", "").split()[3])
    assert float(next(tall.iter("image")).get("x", "")) < float(next(short.iter("image")).get("x", ""))


def test_a_record_reads_back():
    content = gallery("t", ROWS, "f")
    assert gallery_from(asdict(content), "run.json") == content


def test_what_is_no_gallery_is_refused():
    for rows in ([], [("r", GREY, ["1"], [False, True])], [("r", GREY, ["1", "2"], [True])], [("r", GREY[:0], [], [])]):
        with pytest.raises(InvalidArgument, match="t.*expected"):
            gallery("t", rows)
    for image in (
        torch.zeros(2, 3, 3),
        torch.zeros(1, 0, 3),
        torch.full((1, 2, 2), 255.0),
        torch.full((1, 2, 2), torch.nan),
    ):
        with pytest.raises(InvalidArgument, match="one or three channels of values in 0..1"):
            picture_of(image)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g.pop("title"), "title"),
        (lambda g: g.update(rows=[]), "at least one row"),
        (lambda g: g["rows"][0].update(pictures=[]), "one image in each"),
        (lambda g: g["rows"][0]["pictures"][0].update(png="bm8="), "expected a PNG in base64"),
        (lambda g: g["rows"][0]["pictures"][0].update(png='"><script>'), "run.json: galleries"),
        (lambda g: g["rows"][0]["pictures"][0].update(wrong="no"), "wrong: expected true or false"),
        (lambda g: g["rows"][0]["pictures"][0].update(caption=3), "expected a text, got 3"),
        (lambda g: g.update(rows=7), "run.json: galleries"),
    ],
)
def test_damaged_records_are_refused_by_name(change, words):
    content = asdict(gallery("t", ROWS))
    change(content)
    with pytest.raises(DataError, match=words):
        gallery_from(content, "run.json")
