"""Colour maps of masks: which class a colour means, for masks of colours and for palettes in another order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError
from lightning_attack.data.palette_colours import ADE20K, CAMVID, CAMVID_SIDEWALK, CITYSCAPES, CITYSCAPES_IGNORED

Colour = tuple[int, int, int]
Palette = str | Sequence[Sequence[int]] | Mapping[str, int | str]
"""A built-in map by its name, the colour of each class, or classes by colour."""


def _code(colours: np.ndarray) -> np.ndarray:
    """Each colour as one number."""
    parts = colours.astype(np.int32)
    return (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]


class ColourMap:
    """Classes by colour.

    Args:
        name: for messages.
        pairs: colours with their classes, 255 = ignored. A colour of two classes is known and refused where it occurs.

    Example:
        >>> red_blue = ColourMap("mine", [((255, 0, 0), 0), ((0, 0, 255), 1)])
        >>> red_blue(np.array([[[0, 0, 255], [255, 0, 0]]], np.uint8), Path("a.png")).tolist()
        [[1, 0]]
    """

    def __init__(self, name: str, pairs: Iterable[tuple[Colour, int]]) -> None:
        self.name = name
        self.classes: dict[Colour, int] = {}
        self.ambiguous: dict[Colour, tuple[int, int]] = {}
        for colour, number in pairs:
            if self.classes.setdefault(colour, number) != number:
                self.ambiguous[colour] = (self.classes[colour], number)
        self._codes, self._numbers = self._sorted()

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        known = sorted((_code(np.array(colour)), number) for colour, number in self.classes.items())
        codes, numbers = zip(*known, strict=True)
        return np.array(codes), np.array(numbers, np.uint8)

    def __call__(self, colours: np.ndarray, mask: Path) -> np.ndarray:
        """The class of each pixel, (H, W) uint8.

        Args:
            colours: (H, W, 3) uint8.
            mask: the file, for messages.

        Raises:
            DataError: a colour is not in the map, or stands there for two classes.
        """
        codes = _code(colours)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        foreign = self._codes[places] != codes
        if foreign.any():
            raise self._unknown(colours, foreign, mask)
        for colour, (first, second) in self.ambiguous.items():
            if (found := codes == _code(np.array(colour))).any():
                row, column = (int(place[0]) for place in np.nonzero(found))
                raise DataError(
                    f"mask '{mask}' has the colour {colour} at row {row}, column {column}, which stands for two "
                    f"classes in the palette {self.name}: {first} and {second}; decide with "
                    f"palette: {{base: {self.name}, '{_hex(colour)}': {first}}}"
                )
        return self._numbers[places]

    def _unknown(self, colours: np.ndarray, foreign: np.ndarray, mask: Path) -> DataError:
        row, column = (int(place[0]) for place in np.nonzero(foreign))
        colour = tuple(int(value) for value in colours[row, column])
        nearest = min(self.classes, key=lambda one: sum((a - b) ** 2 for a, b in zip(one, colour, strict=True)))
        return DataError(
            f"mask '{mask}' has the colour {colour} at row {row}, column {column}, which is not in the palette "
            f"{self.name} (as {int(foreign.sum())} of {foreign.size} pixels are not); the nearest there is {nearest}, "
            f"class {self.classes[nearest]}. Masks must be saved without smoothing: PNG, resized by nearest neighbour"
        )

    def of_palette(self, palette: np.ndarray, index: int) -> int | None:
        """The class of the colour at an index of a palette; None where the map does not know it."""
        if index >= len(palette):
            return None
        return self.classes.get(tuple(int(value) for value in palette[index]))  # type: ignore[arg-type]


def voc_colour(number: int) -> Colour:
    """The colour of a class of PASCAL VOC: the bits of its number, dealt to red, green and blue from the highest on.

    Example:
        >>> voc_colour(1), voc_colour(15), voc_colour(255)
        ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return colour[0], colour[1], colour[2]


def _numbered(colours: Iterable[Colour]) -> list[tuple[Colour, int]]:
    return [(colour, number) for number, colour in enumerate(colours)]


VOC_MAP = ColourMap("voc", [*_numbered(voc_colour(number) for number in range(21)), (voc_colour(255), IGNORE_INDEX)])
CITYSCAPES_MAP = ColourMap(
    "cityscapes", [*_numbered(CITYSCAPES), *((colour, IGNORE_INDEX) for colour in CITYSCAPES_IGNORED)]
)
CAMVID_MAP = ColourMap("camvid", [*_numbered(CAMVID), (CAMVID_SIDEWALK, 4), ((0, 0, 0), IGNORE_INDEX)])
ADE20K_MAP = ColourMap("ade20k", [*_numbered(ADE20K), ((0, 0, 0), IGNORE_INDEX)])
BUILT_IN = {one.name: one for one in (VOC_MAP, CITYSCAPES_MAP, ADE20K_MAP, CAMVID_MAP)}
_BASE = "base"


def colour_map(palette: Palette, classes: Sequence[str]) -> ColourMap:
    """The colour map that a setting means.

    Args:
        palette: `voc`, `cityscapes` (its 19 classes), `ade20k` or `camvid`; or a list with the colour of each class; or
            classes by colour: `{"#800000": 1, "0, 0, 128": person, "#ffffff": ignore}`, where the key `base` may hold
            the name of a built-in map whose colours are meant too.
        classes: names of the classes.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> colour_map({"#ff0000": "sky", "0, 0, 255": "ignore"}, ("road", "sky")).classes
        {(255, 0, 0): 1, (0, 0, 255): 255}
    """
    if isinstance(palette, str):
        if palette not in BUILT_IN:
            raise ValueError(
                f"palette='{palette}': must be one of {', '.join(BUILT_IN)}, 'index' (palette indices are class "
                "numbers, whatever their colours), a list of colours or classes by colour"
            )
        return BUILT_IN[palette]
    if isinstance(palette, Mapping):
        pairs = {_colour(key): _class(value, classes, key) for key, value in palette.items() if key != _BASE}
        if _BASE in palette:
            base = colour_map(str(palette[_BASE]), classes)
            kept = [(one, number) for one, number in base.classes.items() if one not in pairs]
            unclear = [(one, two) for one, (_, two) in base.ambiguous.items() if one not in pairs]
            return ColourMap(base.name, [*kept, *unclear, *pairs.items()])
        return ColourMap("given", pairs.items())
    if len(palette) != len(classes):
        raise ValueError(f"palette has {len(palette)} colours for {len(classes)} classes; give each class its colour")
    colours = [_colour(one) for one in palette]
    if len(set(colours)) < len(colours):
        twice = next(one for one in colours if colours.count(one) > 1)
        raise ValueError(f"palette has the colour {twice} twice, so it could not be told which class it means")
    return ColourMap("given", _numbered(colours))


def _colour(given: str | Sequence[int]) -> Colour:
    """A colour as red, green and blue in 0..255, or as text: `#ff8000` or `255, 128, 0`."""
    try:
        if isinstance(given, str) and re.fullmatch("#[0-9a-fA-F]{6}", given.strip()):
            values = list(bytes.fromhex(given.strip()[1:]))
        else:
            words = re.split(r"[\s,]+", given.strip(" ()[]")) if isinstance(given, str) else given
            values = [int(word) for word in words]
        red, green, blue = values
        if min(values) >= 0 and max(values) <= 255:
            return red, green, blue
    except (ValueError, TypeError):
        pass
    raise ValueError(f"palette: {given!r} is no colour; expected red, green and blue in 0..255, or '#ff8000'")


def _class(given: int | str, classes: Sequence[str], colour: str) -> int:
    if given in classes:
        return list(classes).index(str(given))
    if given in ("ignore", IGNORE_INDEX, str(IGNORE_INDEX)):
        return IGNORE_INDEX
    if str(given).isdigit() and int(given) < len(classes):
        return int(given)
    raise ValueError(
        f"palette: {colour!r} means {given!r}, which is no class; expected 0..{len(classes) - 1}, the name of a class "
        f"or 'ignore'"
    )


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()
