"""PASCAL VOC 2012 in its own folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision import datasets

from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.files import colours_refused, open_mask, read_photo, size_of_photo
from lightning_attack.data.labelled import check_split
from lightning_attack.data.listing import is_clutter
from lightning_attack.data.palette_masks import PaletteMasks
from lightning_attack.data.palettes import VOC_MAP, voc_colour
from lightning_attack.data.split_lists import listed, read_split

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_OWN_NUMBERS = {number: (number,) for number in range(len(VOC_CLASSES))}

_OWN_PALETTE = np.array([voc_colour(number) for number in range(len(VOC_CLASSES))], np.uint8)


class VOCSegmentation(SegmentationDataset):
    """PASCAL VOC segmentation: 21 classes with background, 255 = object borders, ignored.

    Masks whose palette has VOC's colours in another order, as some programs write them, are read by their colours; of
    those with other colours a warning says that their indices are taken as classes.

    Source: M. Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010.

    Args:
        root: folder that holds `VOC2012`, or `VOCdevkit/VOC2012`.
        split: file in `ImageSets/Segmentation` that lists the photos: `train`, `val`, `trainval` or one of your own,
            such as `train_aug`. Masks that are not in `SegmentationClass` are looked for in `SegmentationClassAug`,
            the usual download of SBD's extra masks for `train_aug`; `TrainAug` makes the same from SBD's own files.
        download: fetch VOC 2012 (2 GB) through torchvision into `root` if it is not there.

    Raises:
        DataError: the folder, the split, a photo or a mask is missing.
    """

    classes = VOC_CLASSES
    labels_settled = True
    concurrent = True

    def __init__(self, root: str, split: str = "val", download: bool = False) -> None:
        folder = _find(Path(root))
        if folder is None and download:
            datasets.VOCSegmentation(root, year="2012", image_set="trainval", download=True)
            folder = _find(Path(root))
        if folder is None:
            raise DataError(
                f"no PASCAL VOC in '{root}'. Expected '{root}/VOC2012' or '{root}/VOCdevkit/VOC2012' with JPEGImages, "
                "SegmentationClass and ImageSets/Segmentation; download: true fetches it"
            )
        self.root, self.split = root, split
        lists = folder / "ImageSets" / "Segmentation"
        remedy = "; put its list of names there and its masks into SegmentationClassAug, or use TrainAug with SBD"
        known = (file.stem for file in lists.glob("*.txt") if not is_clutter(file.name))
        check_split(split, known, lists, remedy if split == "train_aug" else "")
        self._list = read_split(lists / f"{split}.txt")
        self.names = self._list.names
        self._palettes = PaletteMasks()
        self._photos, self._masks = folder / "JPEGImages", folder / "SegmentationClass"
        self._more_masks = folder / "SegmentationClassAug"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Scene:
        name = self.names[index]
        with listed(self._list, name):
            return Scene(read_photo(self._photos / f"{name}.jpg"), self._labels(self._mask(name)), name)

    def photo_size(self, index: int) -> tuple[int, int]:
        return size_of_photo(self._photos / f"{self.names[index]}.jpg")

    def _labels(self, path: Path) -> np.ndarray:
        mask = open_mask(path)
        if mask.values.ndim == 3:
            raise colours_refused(path, mask.mode)
        by_colour = None
        if mask.palette is not None and not np.array_equal(mask.palette[: len(VOC_CLASSES)], _OWN_PALETTE):
            by_colour = self._palettes.by_colour(mask, path, VOC_MAP, _OWN_NUMBERS)
        return mask.values if by_colour is None else by_colour

    def _mask(self, name: str) -> Path:
        # VOC's own masks come first: SBD's know no ignored borders.
        own, more = self._masks / f"{name}.png", self._more_masks / f"{name}.png"
        return more if more.is_file() and not own.is_file() else own


def _find(root: Path) -> Path | None:
    candidates = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((folder for folder in candidates if (folder / "ImageSets" / "Segmentation").is_dir()), None)
