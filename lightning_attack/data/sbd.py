"""SBD's own files, and the training set `train_aug` made from them and PASCAL VOC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.labelled import LabelledFiles, check_split, no_tree, pair, relabel
from lightning_attack.data.listing import is_clutter
from lightning_attack.data.split_lists import listed, read_split
from lightning_attack.data.voc import VOC_CLASSES, VOCSegmentation

FROM_VALUES = {value: value for value in range(len(VOC_CLASSES))} | {255: IGNORE_INDEX}


class SBDSegmentation(LabelledFiles):
    """The Semantic Boundaries Dataset: masks of PASCAL VOC's 21 classes for 11,355 photos of VOC 2011, without borders.

    Source: B. Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.

    Its splits are not those of VOC: photos of VOC val are among them. To learn from SBD and score on VOC val, take
    `TrainAug`. Masks are `.mat` files, which scipy reads.

    Args:
        root: folder that holds `img`, `cls` and `train.txt`, or the unpacked `benchmark_RELEASE`.
        split: list of photos beside them: `train` (8,498), `val` (2,857) or one of your own.

    Raises:
        DataError: the folder, the split, a photo or a mask is missing or cannot be used.
    """

    classes = VOC_CLASSES

    def __init__(self, root: str, split: str = "train") -> None:
        candidates = (Path(root), Path(root) / "dataset", Path(root) / "benchmark_RELEASE" / "dataset")
        folder = next((place for place in candidates if (place / "cls").is_dir() and (place / "img").is_dir()), None)
        if folder is None:
            tree = ("dataset/img/<photo>.jpg", "dataset/cls/<photo>.mat", f"dataset/{split}.txt")
            remedy = (
                "Get benchmark.tgz from https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours, unpack it and give its folder benchmark_RELEASE as root"
            )
            raise no_tree(f"no SBD in '{root}': no folders 'img' and 'cls' there", root, tree, remedy)
        known = (file.stem for file in folder.glob("*.txt") if not is_clutter(file.name))
        check_split(split, known, folder)
        self.root, self.split = root, split
        self._list = read_split(folder / f"{split}.txt")
        self.names = self._list.names
        photos = ((name, folder / "img" / f"{name}.jpg") for name in self.names)
        super().__init__(pair(photos, lambda name: folder / "cls" / f"{name}.mat", self._list.where))

    def __getitem__(self, index: int) -> Scene:
        with listed(self._list, self.names[index]):
            return super().__getitem__(index)

    def labels(self, mask: Path) -> np.ndarray:
        meaning = f"the classes 0..{len(VOC_CLASSES) - 1} (and {IGNORE_INDEX} = ignore)"
        return relabel(read_mat(mask), FROM_VALUES, mask, meaning)


class TrainAug(SegmentationDataset):
    """VOC's `train_aug` from the original files: VOC train, and all of SBD that is neither there nor in VOC val.

    10,582 photos with the complete data sets. VOC's own masks, which have ignored borders, come before SBD's.
    `VOCSegmentation` with `split: train_aug` reads the same photos from a download that has them as PNG files.

    Source: B. Hariharan et al., ICCV 2011; used for training since L.-C. Chen et al., "Semantic Image Segmentation with
    Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015.

    Args:
        voc: root of `VOCSegmentation`.
        sbd: root of `SBDSegmentation`.

    Raises:
        DataError: as `VOCSegmentation` and `SBDSegmentation`.
    """

    classes = VOC_CLASSES
    labels_settled = True
    concurrent = True

    def __init__(self, voc: str, sbd: str) -> None:
        first = VOCSegmentation(voc, "train")
        self._scenes: list[tuple[SegmentationDataset, int]] = [(first, index) for index in range(len(first))]
        self.names = list(first.names)
        taken = {*first.names, *VOCSegmentation(voc, "val").names}
        for more in (SBDSegmentation(sbd, "train"), SBDSegmentation(sbd, "val")):
            new = [(index, name) for index, name in enumerate(more.names) if name not in taken]
            self._scenes += [(more, index) for index, _ in new]
            self.names += [name for _, name in new]
            taken.update(more.names)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Scene:
        dataset, position = self._scenes[index]
        return dataset[position]

    def photo_size(self, index: int) -> tuple[int, int] | None:
        dataset, position = self._scenes[index]
        return dataset.photo_size(position)


def read_mat(path: Path) -> np.ndarray:
    """The segmentation in one of SBD's `cls/*.mat` files, (H, W) uint8.

    Raises:
        DataError: the file is missing or damaged, or it holds something else.
    """
    try:
        values = loadmat(str(path))["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        raise DataError(
            f"mask '{path}' cannot be read ({type(error).__name__}: {error}); expected SBD's GTcls with a Segmentation"
        ) from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype != np.uint8:
        raise DataError(f"mask '{path}' holds no Segmentation of height x width in 8 bits; take SBD's file from `cls`")
    return values
