"""ADE20K as in the scene parsing challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError
from lightning_attack.data.labelled import (
    LabelledFiles,
    check_split,
    check_tree,
    find_photos,
    folders,
    pair,
    read_labels,
)

CLASSES = 150
FROM_VALUES = {0: IGNORE_INDEX} | {value: value - 1 for value in range(1, CLASSES + 1)}
NAMES = "objectInfo150.txt"


class ADE20K(LabelledFiles):
    """ADE20K's 150 classes of the scene parsing challenge; what belongs to none of them is ignored.

    Source: B. Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.

    The class names are read from the data set's own `objectInfo150.txt`: the first of the synonyms there. Without that
    file the names are the numbers in its column Idx, `1` to `150`.

    Args:
        root: folder that holds `images` and `annotations`, as unpacked `ADEChallengeData2016`.
        split: `training` or `validation`.

    Raises:
        DataError: the folder, the split, a photo or a mask is missing or cannot be used, or the file with the class
            names is not of its form.
    """

    def __init__(self, root: str, split: str = "validation") -> None:
        tree = (f"images/{split}/<photo>.jpg", f"annotations/{split}/<photo>.png", f"{NAMES} (optional)")
        remedy = (
            "Get ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu, unpack it and give its folder as root"
        )
        check_tree("ADE20K", root, ("images", "annotations"), tree, remedy)
        photos, masks = Path(root) / "images", Path(root) / "annotations" / split
        check_split(split, folders(photos), photos)
        self.root, self.split = root, split
        self.classes = read_names(Path(root) / NAMES)
        found = find_photos(photos / split, "*.jpg")
        super().__init__(pair(((photo.stem, photo) for photo in found), lambda name: masks / f"{name}.png"))

    def labels(self, mask: Path) -> np.ndarray:
        return read_labels(mask, FROM_VALUES, f"0 = other and the classes 1..{CLASSES} of ADEChallengeData2016")


def read_names(file: Path) -> tuple[str, ...]:
    """The names of the classes by a file like `objectInfo150.txt`; numbers where there is no such file.

    Args:
        file: tab-separated, with the columns Idx and Name among others; a name may be a list of synonyms.

    Raises:
        DataError: the file has another form.
    """
    if not file.is_file():
        return tuple(str(number) for number in range(1, CLASSES + 1))
    try:
        header, *rows = [
            [cell.strip() for cell in line.split("\t")]
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        index, name = header.index("Idx"), header.index("Name")
        names = {int(row[index]): row[name].split(",")[0] for row in rows}
        return tuple(names[number] for number in range(1, CLASSES + 1))
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise DataError(
            f"'{file}' cannot be read as the names of the classes ({error}); expected tab-separated columns with Idx "
            f"1..{CLASSES} and Name, as in ADEChallengeData2016. Put that file there, or take this one away"
        ) from error
