"""Captions for a strip of panels: a title over each panel, the names of the classes' colours below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from lightning_attack.common.labels import ABSTAINED, IGNORE_INDEX, class_colour, names_of_numbers
from lightning_attack.pictures.panels import class_colours

LINE, PANEL, GAP, BLACK, WHITE = 16, 128, 6, (0, 0, 0), (255, 255, 255)
"""Pixels: height of a line of text, width of panels above which text grows with them, and what is between panels."""


def captioned(strip: np.ndarray, titles: Sequence[str], columns: int, legend: Sequence[tuple[int, str]]) -> np.ndarray:
    """Arrange the panels of a strip in rows, with a title over each and a legend below; (h, w, 3) uint8.

    Viewers show the picture in one width: so that text can be read in it, it grows with the panels.

    Args:
        strip: panels of one width side by side, (H, panels x W, 3) uint8; their pixels are not changed.
        titles: one for each panel, of one or more lines. A line that is too long is set smaller, and then cut.
        columns: panels in a row.
        legend: class numbers and names, see `classes_in`.

    Raises:
        ValueError: the strip has no whole panels.

    Example:
        >>> captioned(np.zeros((32, 3 * 40, 3), np.uint8), ["a", "b", "c"], columns=2, legend=[(1, "disk")]).shape
        (124, 86, 3)
    """
    height, width = strip.shape[0], strip.shape[1] // len(titles)
    if width * len(titles) != strip.shape[1]:
        raise ValueError(f"a strip {strip.shape[1]} wide has no {len(titles)} panels of one width")
    columns = min(columns, len(titles))
    scale = max(1.0, width / PANEL)
    text_line = round(LINE * scale)
    rows, above = -(-len(titles) // columns), text_line * (1 + max(title.count("\n") for title in titles))
    size = columns * (width + GAP) - GAP, rows * (above + height + GAP)
    entries, below = _lines(legend, size[0], scale)
    picture = Image.new("RGB", (size[0], size[1] + below), WHITE)
    draw = ImageDraw.Draw(picture)
    for number, title in enumerate(titles):
        left, bottom = number % columns * (width + GAP), number // columns * (above + height + GAP) + above
        for line, words in enumerate(reversed(title.split("\n"))):
            text, font = _fitting(words, width, scale)
            draw.text((left + width / 2, bottom - (line + 0.5) * text_line), text, BLACK, font, anchor="mm")
        panel = strip[:, number * width : (number + 1) * width]
        picture.paste(Image.fromarray(np.ascontiguousarray(panel)), (left, bottom))
    for (left, line), (number, name) in zip(entries, legend, strict=True):
        top = size[1] + line * text_line
        box = (left, top + 2 * scale, left + 11 * scale, top + 13 * scale)
        draw.rectangle(box, class_colour(number), BLACK)
        draw.text((left + 16 * scale, top + text_line / 2), name, BLACK, _font(11 * scale), anchor="lm")
    return np.array(picture)


def classes_in(maps: np.ndarray, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Number and name of each class whose colour occurs in colored label maps (H, W, 3), by number.

    Pixels without a class come last.

    Example:
        >>> maps = class_colours().numpy()[[[2, 0, 255, -1]]]
        >>> classes_in(maps, ["background", "disk", "square"])
        [(0, 'background'), (2, 'square'), (255, 'ignored'), (-1, 'abstained')]
    """
    names = names_of_numbers(classes)
    seen = np.zeros(1 << 24, bool)
    seen[_as_numbers(maps)] = True
    rows = np.flatnonzero(seen[_as_numbers(class_colours().numpy())]).tolist()
    numbers = (row if row <= IGNORE_INDEX else ABSTAINED for row in rows)
    return [(number, names.get(number, str(number))) for number in numbers]


def _as_numbers(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 as numbers below 2^24, (...)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


@cache
def _font(size: float) -> FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(title: str, width: int, scale: float) -> tuple[str, FreeTypeFont | ImageFont.ImageFont]:
    """The title, shortened if need be, and a font in which it fits into a width."""
    for size in (12, 11, 10, 9):
        if _font(size * scale).getlength(title) <= width:
            return title, _font(size * scale)
    smallest = _font(9 * scale)
    while len(title) > 1 and smallest.getlength(title + "…") > width:
        title = title[:-1]
    return title + "…", smallest


def _lines(legend: Sequence[tuple[int, str]], width: int, scale: float) -> tuple[list[tuple[int, int]], int]:
    """Left end and line of each entry of a legend, and the height of all."""
    places: list[tuple[int, int]] = []
    left = line = 0
    for _, name in legend:
        taken = round(28 * scale + _font(11 * scale).getlength(name))
        if left and left + taken > width:
            left, line = 0, line + 1
        places.append((left, line))
        left += taken
    return places, (line + 1) * round(LINE * scale) if places else 0
