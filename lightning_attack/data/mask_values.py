"""What the values of a folder's masks mean, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, values_in
from lightning_attack.data.files import MaskFile, grey, open_mask
from lightning_attack.data.palette_masks import PaletteMasks
from lightning_attack.data.palettes import Palette, colour_map


class MaskReader:
    """Reads the masks of a folder as class numbers, 255 = ignored.

    Without settings the values of a mask are the classes; so are the indices of one with a palette, unless this is the
    palette of VOC or Cityscapes in another order: then its colours are.

    Args:
        classes: names of the classes.
        palette: masks show classes as colours; see `colour_map`. `index`: indices are classes, whatever the colours.
        label_map: class of each value that masks hold.
        label_offset: value of the first class; smaller ones are ignored. 1: 0 is unlabelled and classes count from 1.
        ignore_index: a value that is ignored besides 255. Given as 255, it says that 255 marks no object.

    Raises:
        ValueError: settings that exclude each other, or a class that there is not.
    """

    def __init__(
        self,
        classes: Sequence[str],
        palette: Palette | None = None,
        label_map: Mapping[int, int] | None = None,
        label_offset: int = 0,
        ignore_index: int | None = None,
    ) -> None:
        given = [
            name
            for name, is_given in (
                ("palette", palette not in (None, "index")),
                ("label_map", label_map is not None),
                ("label_offset", label_offset != 0),
            )
            if is_given
        ]
        if len(given) > 1 or (given == ["palette"] and ignore_index is not None):
            raise ValueError(f"{' and '.join(given[:2] if len(given) > 1 else ['palette', 'ignore_index'])} both say "
                             "which classes masks hold; give one of them")  # fmt: skip
        if not 0 <= label_offset <= 255:
            raise ValueError(f"label_offset={label_offset}: must be 0..255, the value of the first class")
        if ignore_index is not None and not 0 <= ignore_index <= 255:
            raise ValueError(
                f"ignore_index={ignore_index}: must be 0..255, as values of masks are (-1 is stored as 255)"
            )
        for value, number in (label_map or {}).items():
            if not 0 <= value <= 255 or not (0 <= number < len(classes) or number == IGNORE_INDEX):
                raise ValueError(
                    f"label_map: {value}: {number}: values must be 0..255 and classes 0..{len(classes) - 1} "
                    f"(or {IGNORE_INDEX} = ignored)"
                )
        self.count = len(classes)
        self.settled = bool(given) or ignore_index is not None
        """Whether a setting says what values mean, so that they are not suspected."""
        self._by_index = palette == "index"
        self._colours = None if palette in (None, "index") else colour_map(palette, classes)  # type: ignore[arg-type]
        self._palettes = PaletteMasks()
        self._known = None if label_map is None else {*label_map, *([] if ignore_index is None else [ignore_index])}
        self._table = _table(label_map, label_offset, ignore_index)

    def __call__(self, path: Path) -> np.ndarray:
        """The classes in a mask, (H, W) uint8.

        Raises:
            DataError: the file cannot be read, or holds what the settings do not know.
        """
        mask = open_mask(path)
        if self._colours is not None:
            return self._by_colour(mask, path)
        values = grey(mask.values, path, mask.mode)
        if mask.palette is not None and not self._by_index:
            if self._table is None:
                values = self._palettes.any(mask, path, self.count)
            else:
                self._palettes.consistent(mask, path)
        if self._known is not None:
            foreign = [int(value) for value in values_in(values) if value not in self._known]
            if foreign:
                raise DataError(
                    f"mask '{path}' holds the value{'s' * (len(foreign) > 1)} {', '.join(map(str, foreign[:5]))}"
                    f"{', ...' * (len(foreign) > 5)}; label_map has {', '.join(map(str, sorted(self._known)))}"
                )
        return values if self._table is None else self._table[values]

    def _by_colour(self, mask: MaskFile, path: Path) -> np.ndarray:
        """The classes of the colours. An index of 255 behind the end of a palette is ignored, as by custom."""
        assert self._colours is not None
        if mask.palette is None or mask.values.ndim == 3:
            return self._colours(_as_colours(mask.values), path)
        outside = mask.values >= len(mask.palette)
        if foreign := sorted({*mask.values[outside].tolist()} - {IGNORE_INDEX}):
            raise DataError(
                f"mask '{path}' holds the index {foreign[0]}, but its palette has {len(mask.palette)} colours; save it "
                "with a colour for each index, or leave palette out if indices are classes"
            )
        if outside.all():
            return mask.values
        inside = np.where(outside, mask.values[~outside][0], mask.values)
        return np.where(outside, np.uint8(IGNORE_INDEX), self._colours(mask.palette[inside], path))


def _table(label_map: Mapping[int, int] | None, offset: int, ignore_index: int | None) -> np.ndarray | None:
    """The class of each value; None where each value is its class."""
    if label_map is None and not offset and ignore_index in (None, IGNORE_INDEX):
        return None
    table = np.full(256, IGNORE_INDEX, np.uint8)
    if label_map is not None:
        table[list(label_map)] = list(label_map.values())
    else:
        table[offset:IGNORE_INDEX] = np.arange(IGNORE_INDEX - offset)
    if ignore_index is not None:
        table[ignore_index] = IGNORE_INDEX
    return table


def _as_colours(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3:
        return values
    return np.repeat(values[..., None], 3, 2)
