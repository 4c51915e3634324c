"""Photos with label maps in files of a known folder tree, where a map's values are not yet the classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, Scene, SegmentationDataset, values_in
from lightning_attack.data.files import read_mask, read_photo, size_of_photo
from lightning_attack.data.listing import existing, find_files, is_clutter


class Pair(NamedTuple):
    """A photo and its label map on disk."""

    name: str
    photo: Path
    mask: Path


class LabelledFiles(SegmentationDataset):
    """Scenes from pairs of files. A subclass finds the pairs and says by `labels` what the values of a map mean.

    Args:
        pairs: the files in the order of the scenes; `pair` makes them.
    """

    labels_settled = True
    concurrent = True

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = list(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Scene:
        name, photo, mask = self._pairs[index]
        return Scene(read_photo(photo), self.labels(mask), name)

    def photo_size(self, index: int) -> tuple[int, int]:
        return size_of_photo(self._pairs[index].photo)

    @abstractmethod
    def labels(self, mask: Path) -> np.ndarray:
        """The classes in a label map, (H, W) uint8 with 255 = ignored. Raises `DataError` for a foreign value."""


def read_labels(mask: Path, classes: Mapping[int, int], meaning: str) -> np.ndarray:
    """Read a label map and replace each value by its class, as `relabel` does."""
    return relabel(read_mask(mask), classes, mask, meaning)


def relabel(values: np.ndarray, classes: Mapping[int, int], mask: Path, meaning: str) -> np.ndarray:
    """Replace each value of a label map by its class.

    Args:
        values: (H, W) uint8 as read.
        classes: class of each value that may occur, both in 0..255.
        mask: the file, for the message.
        meaning: which values may occur, for the message.

    Raises:
        DataError: another value occurs.

    Example:
        >>> relabel(np.array([[7, 0], [8, 7]], np.uint8), {0: 255, 7: 0, 8: 1}, Path("a.png"), "").tolist()
        [[0, 255], [1, 0]]
        >>> relabel(np.array([[9]], np.uint8), {0: 255, 7: 0, 8: 1}, Path("a.png"), "0, 7 and 8")
        Traceback (most recent call last):
            ...
        lightning_attack.data.base.DataError: mask 'a.png' holds the value 9; expected 0, 7 and 8
    """
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[list(classes)] = list(classes.values())
    foreign = np.setdiff1d(values_in(values), list(classes))
    if foreign.size:
        several = "s" if len(foreign) > 1 else ""
        raise DataError(
            f"mask '{mask}' holds the value{several} {', '.join(map(str, foreign[:5]))}"
            f"{', ...' if len(foreign) > 5 else ''}; expected {meaning}"
        )
    return table[values]


def pair(
    photos: Iterable[tuple[str, Path]], mask: Callable[[str], Path], where: Callable[[str], str] | None = None
) -> list[Pair]:
    """Pair photos with their label maps.

    Args:
        photos: name and file of each photo.
        mask: the file in which a scene's label map should be.
        where: where a scene is listed, for the message.

    Raises:
        DataError: some photos have no label map, so that a broken download is found before the run.
    """
    pairs = [Pair(name, photo, mask(name)) for name, photo in photos]
    missing = [one for one in pairs if not existing(one.mask).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pairs)} photos have no mask; the first is '{missing[0].photo}', whose mask should "
            f"be '{missing[0].mask}'; unpack the masks again, or take the photos away"
            + ("" if where is None else f" ({where(missing[0].name)})")
        )
    return pairs


def find_photos(folder: Path, pattern: str) -> list[Path]:
    """The photos below a folder in the order of their paths, as `find_files` finds them.

    Args:
        folder: where they lie.
        pattern: their paths below it, such as `*/*.jpg`.

    Raises:
        DataError: there are none.
    """

    def wanted(path: Path) -> bool:
        below = path.relative_to(folder)
        return below.match(pattern) and len(below.parts) == pattern.count("/") + 1

    found = find_files(folder, wanted, expected=pattern) if folder.is_dir() else []
    if not found:
        raise DataError(f"no photos '{folder}/{pattern}'; unpack the photos again, or choose another split")
    return found


def check_tree(what: str, root: str, parts: Iterable[str], tree: Sequence[str], remedy: str) -> None:
    """Look whether a root is what a data set needs.

    Args:
        what: name of the data set.
        root: folder that should hold it.
        parts: files and folders below `root` that must be there.
        tree: paths below `root` with the form of the files, for the message.
        remedy: where to get the data set and where to put it.

    Raises:
        DataError: a part is missing; the message shows the expected tree.
    """
    missing = [part for part in parts if not (Path(root) / part).exists()]
    if missing:
        raise no_tree(f"no {what} in '{root}': no '{missing[0]}' there", root, tree, remedy)


def no_tree(problem: str, root: str, tree: Sequence[str], remedy: str) -> DataError:
    """The error that shows the expected tree. On one line: the command line answers a mistake in two at most."""
    return DataError(f"{problem}; expected {', '.join(f'{root}/{path}' for path in tree)}. {remedy}")


def check_split(split: str, known: Iterable[str], place: Path, remedy: str = "") -> None:
    """Raise `DataError` if a split is none of the known ones, and name these."""
    known = sorted(known)
    if split not in known:
        raise DataError(f"no split '{split}' in '{place}'; there are: {', '.join(known) or 'none'}{remedy}")


def folders(place: Path) -> list[str]:
    """Names of the folders in a folder."""
    if not place.is_dir():
        return []
    return [entry.name for entry in place.iterdir() if entry.is_dir() and not is_clutter(entry.name)]
