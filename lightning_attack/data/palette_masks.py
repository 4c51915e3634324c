"""Masks with a palette: whether their indices are the class numbers, by the colours that the palette gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, values_in
from lightning_attack.data.files import MaskFile
from lightning_attack.data.notices import Notices
from lightning_attack.data.palettes import CITYSCAPES_MAP, VOC_MAP, Colour, ColourMap


class PaletteMasks:
    """Reads the palettes of one data set's masks, and notices where they contradict the indices or each other.

    Programs that save a mask anew, or make one of its colours, often choose a palette of their own for each file: the
    picture looks right and its indices mean nothing.
    """

    def __init__(self) -> None:
        self.notices = Notices()
        self._seen: dict[int, tuple[Colour, Path]] = {}

    def by_colour(
        self, mask: MaskFile, path: Path, colours: ColourMap, classes: Mapping[int, Collection[int]]
    ) -> np.ndarray | None:
        """The classes in a mask whose palette should be a certain one, if it has that palette in another order.

        Args:
            mask: the file's content, with a palette.
            path: the file, for messages.
            colours: the classes of the colours.
            classes: those whose colour each index may have, 255 = ignored.

        Returns:
            (H, W) uint8: the classes that the colours mean; None: the indices are right, or the palette is another one.

        Raises:
            DataError: the palette has some of the colours at other places, and some of its own.
        """
        used = _used(mask)
        meant = {index: colours.of_palette(_palette(mask), index) for index in used}
        unknown = [index for index in used if meant[index] is None]
        # Index 255 is ignored by custom, whatever its colour: black where a palette ends before it.
        moved = [
            index
            for index in used
            if meant[index] is not None and index != IGNORE_INDEX and meant[index] not in classes.get(index, ())
        ]
        if not moved:
            if unknown and not _is_grey(mask, used):
                self.consistent(mask, path)
                self.notices(
                    "unknown",
                    f"mask '{path}' has another palette than that of {colours.name} (index {unknown[0]} is "
                    f"{_colour(mask, unknown[0])}); its indices are taken as they are, whatever their colours",
                )
            return None
        if unknown:
            raise DataError(
                f"mask '{path}' has a palette in which index {moved[0]} has the colour of class {meant[moved[0]]} of "
                f"{colours.name}, and index {unknown[0]} the colour {_colour(mask, unknown[0])}, which is none of it: "
                "its classes cannot be told; take the original mask"
            )
        self._reordered(path, colours, moved[0], meant[moved[0]])
        return _mapped(mask, meant)

    def any(self, mask: MaskFile, path: Path, classes: int) -> np.ndarray:
        """The class numbers of a mask of any data set: its indices, unless its palette is a known one in another order.

        The palette counts as VOC's, or with 19 classes as that of Cityscapes, if it has no other colours and if these
        mean classes that the data set has.

        Raises:
            DataError: the palette gives another colour to an index than that of an earlier mask.
        """
        used = _used(mask)
        for colours in (VOC_MAP, *((CITYSCAPES_MAP,) if classes == 19 else ())):
            table = {index: colours.of_palette(_palette(mask), index) for index in range(len(_palette(mask)))}
            meant = {index: table.get(index) for index in used}
            fit = all(number is not None and (number < classes or number == IGNORE_INDEX) for number in meant.values())
            if not fit or None in table.values():
                continue
            moved = [index for index in used if index not in (meant[index], IGNORE_INDEX)]
            if not moved:
                return mask.values
            self._reordered(path, colours, moved[0], meant[moved[0]], "; palette: index reads indices nevertheless")
            return _mapped(mask, meant)
        self.consistent(mask, path)
        return mask.values

    def consistent(self, mask: MaskFile, path: Path) -> None:
        """Raise `DataError` if an index has another colour here than in a mask that was read before."""
        for index in _used(mask):
            colour = _colour(mask, index)
            seen, file = self._seen.setdefault(index, (colour, path))
            if seen != colour:
                # Masks are read in threads, in any order.
                (first, one), (second, other) = sorted([(file, seen), (path, colour)])
                raise DataError(
                    f"masks have palettes in different orders: index {index} is {one} in '{first}' and {other} in "
                    f"'{second}', so indices are no class numbers; ImageFolder reads masks by their colours with "
                    "palette: [[red, green, blue], ...] (or by index nevertheless with palette: index)"
                )

    def _reordered(self, path: Path, colours: ColourMap, index: int, number: int | None, remedy: str = "") -> None:
        self.notices(
            f"order {colours.name}",
            f"mask '{path}' has the palette of {colours.name} in another order (index {index} has the colour of class "
            f"{number}); such masks are read by their colours{remedy}",
        )


def _mapped(mask: MaskFile, meant: Mapping[int, int | None]) -> np.ndarray:
    """The classes that the indices of a mask mean; all of them must be known."""
    numbers = np.zeros(256, np.uint8)
    for index, number in meant.items():
        numbers[index] = IGNORE_INDEX if number is None else number
    return numbers[mask.values]


def _palette(mask: MaskFile) -> np.ndarray:
    assert mask.palette is not None
    return mask.palette


def _used(mask: MaskFile) -> list[int]:
    return [int(index) for index in values_in(mask.values)]


def _colour(mask: MaskFile, index: int) -> Colour:
    palette = _palette(mask)
    red, green, blue = (int(value) for value in palette[index]) if index < len(palette) else (-1, -1, -1)
    return red, green, blue


def _is_grey(mask: MaskFile, used: list[int]) -> bool:
    """Whether the palette shows each index as the grey of its number, which says nothing of classes."""
    return all(_colour(mask, index) == (index, index, index) for index in used)
