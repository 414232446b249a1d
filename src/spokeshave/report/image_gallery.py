"""A gallery of small images, such as adversarial ones or poison: rows with a name, a caption under each image.

Images are kept as PNGs of 8 bits a channel in base64, so that a run's record can hold them, and are drawn pixel by
pixel inside the page. What a model has wrong is framed, and said in words.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from markupsafe import escape
from PIL import Image
from torch import Tensor

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.svg_parts import svg_drawing, svg_text

_SIDE, _GAP, _CAPTION, _TOP = 56.0, 10.0, 16.0, 4.0
"""Px of an image, between images, of the caption below, above the first row."""
_LETTER, _BOLD_LETTER, _WIDEST_NAME = 6.6, 7.4, 150.0
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        png: in base64.
        caption: a few letters below it, such as the class that a model sees.
        wrong: whether a model has it wrong.
    """

    png: str
    caption: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class GalleryRow:
    """Images beside each other, such as those of one strength of attack."""

    label: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Gallery:
    """Rows of images under a heading; JSON values throughout.

    Attributes:
        title: its heading.
        rows: from top to bottom.
        framed: what a frame means, such as "taken for another digit"; empty where nothing is framed.
    """

    title: str
    rows: list[GalleryRow]
    framed: str = ""


def picture_of(image: Float[Tensor, "c h w"], caption: str = "", wrong: bool = False) -> Picture:
    """Keep an image for a gallery.

    Args:
        image: 0..1, one channel (grey) or three (red, green, blue); rounded to 8 bits.
        caption: a few letters.
        wrong: whether a model has it wrong.

    Raises:
        InvalidArgument: for another number of channels, no pixels, or values outside 0..1.

    Example:
        >>> import torch
        >>> picture_of(torch.zeros(1, 2, 2), "7").caption
        '7'
    """
    inside = bool(((image >= 0) & (image <= 1)).all())
    if image.shape[0] not in (1, 3) or not image.numel() or not inside:
        raise InvalidArgument(
            f"image: expected one or three channels of values in 0..1, got {tuple(image.shape)}"
            f"{'' if inside else ' with values outside, or NaN'}"
        )
    levels = (image.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels[..., 0] if image.shape[0] == 1 else levels).save(buffer, format="PNG", optimize=True)
    return Picture(base64.b64encode(buffer.getvalue()).decode(), caption, wrong)


def gallery(
    title: str,
    rows: Sequence[tuple[str, Float[Tensor, "_ _ _ _"], Sequence[str], Sequence[bool]]],
    framed: str = "",
) -> Gallery:
    """Keep rows of images.

    Args:
        title: the heading.
        rows: for each its name, images in 0..1, a caption and a flag of wrongness for each image.
        framed: what a frame means.

    Raises:
        InvalidArgument: for no row, other numbers of captions or flags than of images, or images that are none.
    """
    if not rows:
        raise InvalidArgument(f"{title}: expected at least one row of images, got none")
    made = []
    for label, images, captions, wrong in rows:
        if not len(images) == len(captions) == len(wrong) or not len(images):
            raise InvalidArgument(
                f"{title}, {label}: expected a caption and a flag for each of {len(images)} images, got "
                f"{len(captions)} and {len(wrong)}"
            )
        parts = zip(images, captions, wrong, strict=True)
        made.append(GalleryRow(label, [picture_of(image, caption, bool(flag)) for image, caption, flag in parts]))
    return Gallery(title, made, framed)


def gallery_figure(content: Gallery) -> Figure:
    """Draw a gallery: inline SVG with the images inside.

    Args:
        content: what is shown.
    """
    captions = [len(picture.caption) for row in content.rows for picture in row.pictures]
    step = max(_SIDE, _LETTER * max(captions)) + _GAP
    longest = 8 + _BOLD_LETTER * max(len(row.label) for row in content.rows)
    name = min(_WIDEST_NAME, longest)
    # A name too long for its column stands above its row.
    above = 18.0 if longest > _WIDEST_NAME else 0.0
    left, high = (0.0 if above else name), _SIDE + _CAPTION + _GAP + above
    parts = []
    for place, row in enumerate(content.rows):
        top = _TOP + high * place + above
        parts.append(svg_text("name", 0, top - 5 if above else top + _SIDE / 2 + 4, row.label))
        for column, picture in enumerate(row.pictures):
            parts += _drawn(picture, left + step * column + 2, top, row.label)
    width = left + step * max(len(row.pictures) for row in content.rows)
    said = "; ".join(f"{row.label}: {', '.join(map(_words, row.pictures))}" for row in content.rows)
    drawing = svg_drawing(
        "chart wide gallery", f"{content.title}. {said}", parts, width, high * len(content.rows) + _TOP, width
    )
    legend = (LegendEntry(content.framed, mark="fooled"), LegendEntry("otherwise", mark="stands"))
    return Figure(content.title, drawing, legend if content.framed else ())


def gallery_from(content: Any, source: str) -> Gallery:
    """Build a gallery from what a record holds.

    Args:
        content: its fields.
        source: where they are from, for errors.

    Raises:
        DataError: where a field is missing, unknown or of another type, or an image is no PNG.
    """
    try:
        rows = [
            GalleryRow(_text(row["label"]), [Picture(**_fields(picture)) for picture in row["pictures"]])
            for row in content["rows"]
        ]
        made = Gallery(_text(content["title"]), rows, _text(content["framed"]))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{source}: galleries: {error}; run the recipe again") from error
    if not rows or not all(row.pictures for row in rows):
        raise DataError(f"{source}: galleries: {made.title}: expected at least one row, and one image in each")
    return made


def _fields(picture: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a picture, if they are of their types and the image is a PNG."""
    start = base64.b64decode(_text(picture["png"]), validate=True)[: len(_PNG)]
    if start != _PNG:
        raise ValueError(f"an image: expected a PNG in base64, got one that begins with {start!r}")
    if not isinstance(picture["wrong"], bool):
        raise TypeError(f"wrong: expected true or false, got {picture['wrong']!r}")
    return {"png": picture["png"], "caption": _text(picture["caption"]), "wrong": picture["wrong"]}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _drawn(picture: Picture, x: float, y: float, row: str) -> list[str]:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{_SIDE:.0f}" height="{_SIDE:.0f}"'
    wrong = " wrong" if picture.wrong else ""
    hint = f"<title>{escape(f'{row}: {_words(picture)}')}</title>"
    return [
        f'<image {box} href="data:image/png;base64,{escape(picture.png)}"/>',
        f'<rect class="edge{wrong}" {box} pointer-events="all">{hint}</rect>',
        svg_text(f"said{wrong}", x + _SIDE / 2, y + _SIDE + 12, picture.caption, "middle"),
    ]


def _words(picture: Picture) -> str:
    return f"{picture.caption}{' (wrong)' if picture.wrong else ''}"
