"""Cityscapes in its own folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, Scene, check_mask_size, values_in
from lightning_attack.data.files import colours_refused, open_mask
from lightning_attack.data.labelled import (
    LabelledFiles,
    check_split,
    check_tree,
    find_photos,
    folders,
    pair,
    relabel,
)
from lightning_attack.data.palette_masks import PaletteMasks
from lightning_attack.data.palettes import CITYSCAPES_MAP
from lightning_attack.data.transforms import Fit

LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The 19 classes that are scored, in the order of their train ids, and the id of each among all 34 labels."""

FROM_LABEL_IDS = (
    # -1, the licence plate, is 255 in a PNG.
    dict.fromkeys([*range(34), 255], IGNORE_INDEX)
    | {label: train_id for train_id, label in enumerate(LABEL_IDS.values())}
)
_POLE_GROUP = 18
FROM_TRAIN_IDS = {train_id: train_id for train_id in range(len(LABEL_IDS))} | {255: IGNORE_INDEX}

_PHOTO, _LABELS, _TRAIN = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


class Cityscapes(LabelledFiles):
    """Cityscapes, finely annotated: 1024x2048 street scenes, 19 classes; the other 15 of its 34 labels are ignored.

    Source: M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.

    A scene is named by its city and frame, such as `aachen/aachen_000000_000019`. Masks are `labelIds`; where there is
    none, `labelTrainIds`, which the data set's own scripts make. The download needs a login, so it is yours to do.

    Args:
        root: folder that holds `leftImg8bit` and `gtFine`.
        split: `train`, `val` or `test` (whose labels are held back: every pixel is ignored).
        scale: factor for height and width in (0, 1]; 0.5 is the half resolution of many papers. Photos are resized
            bilinearly (antialiased), masks by nearest neighbour. Folders of `data.target_masks` and
            `data.region_masks` must have the resulting size.

    Raises:
        DataError: the folder, the split, a photo or a mask is missing or cannot be used.
        ValueError: `scale` is out of range.
    """

    classes = tuple(LABEL_IDS)

    def __init__(self, root: str, split: str = "val", scale: float = 1.0) -> None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale={scale}: must be above 0 and not above 1; 0.5 is half the height and width")
        tree = (f"leftImg8bit/{split}/<city>/<frame>{_PHOTO}", f"gtFine/{split}/<city>/<frame>{_LABELS}")
        remedy = (
            "Get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com "
            f"(free login) and unpack both in '{root}'"
        )
        check_tree("Cityscapes", root, ("leftImg8bit", "gtFine"), tree, remedy)
        photos, self._masks = Path(root) / "leftImg8bit", Path(root) / "gtFine" / split
        check_split(split, folders(photos), photos)
        self.root, self.split, self.scale = root, split, scale
        found = find_photos(photos / split, f"*/*{_PHOTO}")
        named = ((f"{photo.parent.name}/{photo.name.removesuffix(_PHOTO)}", photo) for photo in found)
        self._palettes = PaletteMasks()
        self._label_ids = np.zeros(256, bool)  # those that occurred in masks of label ids
        super().__init__(pair(named, self._mask))

    def __getitem__(self, index: int) -> Scene:
        scene = super().__getitem__(index)
        if self.scale == 1 or scene.mask is None:
            return scene
        check_mask_size(scene.mask, scene.image, scene.name)  # afterwards both have the same size anyway
        fit = Fit(self._scaled(*scene.mask.shape))
        image, _ = fit(torch.from_numpy(scene.image).permute(2, 0, 1), None)
        return Scene(image.permute(1, 2, 0).numpy(), fit.mask(torch.from_numpy(scene.mask)).numpy(), scene.name)

    def photo_size(self, index: int) -> tuple[int, int]:
        height, width = super().photo_size(index)
        return self._scaled(height, width) if height else (0, 0)  # it cannot be read

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def labels(self, mask: Path) -> np.ndarray:
        file = open_mask(mask)
        if file.values.ndim == 3:
            raise colours_refused(mask, file.mode)
        of_train_ids = mask.name.endswith(_TRAIN)
        classes = FROM_TRAIN_IDS if of_train_ids else FROM_LABEL_IDS
        if file.palette is not None:
            shown = {label: {number} for label, number in classes.items()}
            if not of_train_ids:
                shown[_POLE_GROUP].add(FROM_LABEL_IDS[LABEL_IDS["pole"]])  # it has the colour of poles
            by_colour = self._palettes.by_colour(file, mask, CITYSCAPES_MAP, shown)
            if by_colour is not None:
                return by_colour
        if of_train_ids:
            return relabel(file.values, classes, mask, "Cityscapes' train ids, 0..18 (and 255 = ignore)")
        self._label_ids[values_in(file.values)] = True
        return relabel(file.values, classes, mask, "Cityscapes' label ids, 0..33 (and 255, the licence plate)")

    def check_labels(self) -> None:
        """Raise `DataError` if all masks of label ids look like train ids: no vegetation, no sky, no cars."""
        ids = np.flatnonzero(self._label_ids)
        highest = max((int(label) for label in ids if label != IGNORE_INDEX), default=0)
        # The masks of `test` hold 0..3 only, what no class is.
        if 3 < highest < len(LABEL_IDS):
            raise DataError(
                f"the masks *{_LABELS} hold no label above {highest} (and 255), as masks of train ids do; label ids go "
                f"to 33. If these are train ids, name them *{_TRAIN}"
            )

    def _mask(self, name: str) -> Path:
        labels, train = self._masks / f"{name}{_LABELS}", self._masks / f"{name}{_TRAIN}"
        return train if train.is_file() and not labels.is_file() else labels
