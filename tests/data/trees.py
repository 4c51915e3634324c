"""Tiny data sets on disk, each in its own layout: photos of 4x6 pixels, every value that a label map may hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from lightning_attack.data import ADE20K, CamVid, Cityscapes, SBDSegmentation, VOCSegmentation

SIZE = (4, 6)


def photo(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def png(path, values, palette=False):
    """A label map; with a palette its colours have nothing to do with its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image = Image.fromarray(np.asarray(values, np.uint8), mode="P")
        image.putpalette([value * 7 % 256 for value in range(768)])
    image.save(path)


def mat(path, values, **_):
    """A label map as SBD has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": np.asarray(values, np.uint8), "CategoriesPresent": [[1]]}})


def values(*known, size=SIZE):
    return np.resize(np.array(known, np.uint8), size)


def cityscapes(root, palette=False):
    for split, city in (("train", "aachen"), ("val", "lindau"), ("val", "munster")):
        frame = f"{split}/{city}/{city}_000000_000019"
        photo(root / "leftImg8bit" / f"{frame}_leftImg8bit.png")
        png(root / "gtFine" / f"{frame}_gtFine_labelIds.png", values(7, 8, 33, 0, 255, 29), palette)
        png(root / "gtFine" / f"{frame}_gtFine_color.png", values(1))  # beside them in the real one, and not meant


def ade20k(root, palette=False):
    for split, number in (("training", 1), ("validation", 1), ("validation", 2)):
        name = f"{split}/ADE_{split[:-3]}_{number:08d}"
        photo(root / "images" / f"{name}.jpg")
        png(root / "annotations" / f"{name}.png", values(0, 1, 150, 20), palette)


def camvid(root, palette=False):
    for split, number in (("train", 1), ("val", 1), ("val", 2), ("test", 1)):
        photo(root / split / f"0016E5_{number:05d}.png")
        png(root / f"{split}annot" / f"0016E5_{number:05d}.png", values(0, 10, 11, 5), palette)


def voc(root, palette=False):
    """Two photos of VOC val, one of VOC train, one whose mask only SBD has."""
    folder = root / "VOC2012"
    for name in ("2007_000001", "2007_000002", "2007_000003", "2008_000004"):
        photo(folder / "JPEGImages" / f"{name}.jpg")
        own = "SegmentationClass" if name.startswith("2007") else "SegmentationClassAug"
        png(folder / own / f"{name}.png", values(0, 20, 255, 5), palette)
    lists = {
        "val": ("2007_000001", "2007_000002"),
        "train": ("2007_000003",),
        "train_aug": ("2007_000003", "2008_000004"),
    }
    for split, names in lists.items():
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def sbd(root, palette=False):
    """Its train has a photo of VOC val and one of VOC train, its val has one of each and one of its own."""
    folder = root / "dataset"
    lists = {
        "train": ("2007_000003", "2008_000004", "2007_000001"),
        "val": ("2007_000002", "2008_000005"),
    }
    for split, names in lists.items():
        for name in names:
            photo(folder / "img" / f"{name}.jpg")
            mat(folder / "cls" / f"{name}.mat", values(0, 20, 5))
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


@dataclass(frozen=True)
class Layout:
    """A kind of tree, and what a test wants to know of its first scene."""

    make: Callable
    open: Callable
    name: str
    photo: str
    mask: str
    labels: tuple[int, ...]
    scenes: int
    classes: int
    foreign: tuple[int, str]
    """A value that no label map may hold, and the words of the error."""
    root: str
    """What the error for a wrong root must show."""

    def __call__(self, root: Path, **arguments):
        return self.open(str(root), **arguments)

    def save(self, path, values, **arguments):
        (mat if self.mask.endswith(".mat") else png)(path, values, **arguments)


LAYOUTS = {
    "cityscapes": Layout(
        make=cityscapes,
        open=Cityscapes,
        name="lindau/lindau_000000_000019",
        photo="leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
        mask="gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png",
        labels=(0, 1, 18, 255, 255, 255),
        scenes=2,
        classes=19,
        foreign=(34, r"holds the value 34; expected Cityscapes' label ids, 0..33"),
        root=r"leftImg8bit/val/<city>/<frame>_leftImg8bit.png, .*gtFine/val/<city>/<frame>_gtFine_labelIds.png\. Get "
        r"leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com",
    ),
    "ade20k": Layout(
        make=ade20k,
        open=ADE20K,
        name="ADE_validat_00000001",
        photo="images/validation/ADE_validat_00000001.jpg",
        mask="annotations/validation/ADE_validat_00000001.png",
        labels=(255, 0, 149, 19),
        scenes=2,
        classes=150,
        foreign=(151, r"holds the value 151; expected 0 = other and the classes 1..150"),
        root=r"images/validation/<photo>.jpg, .*annotations/validation/<photo>.png, .*objectInfo150.txt \(optional\)\. "
        r"Get ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu",
    ),
    "camvid": Layout(
        make=camvid,
        open=CamVid,
        name="0016E5_00001",
        photo="val/0016E5_00001.png",
        mask="valannot/0016E5_00001.png",
        labels=(0, 10, 255, 5),
        scenes=2,
        classes=11,
        foreign=(12, r"holds the value 12; expected the classes 0..10 \(and 11 or 255 = void\)"),
        root=r"val/<photo>.png, .*valannot/<photo>.png\. Get the folder CamVid of https://github.com/alexgkendall",
    ),
    "voc": Layout(
        make=voc,
        open=lambda root, split="train_aug": VOCSegmentation(root, split),
        name="2007_000003",
        photo="VOC2012/JPEGImages/2007_000003.jpg",
        mask="VOC2012/SegmentationClass/2007_000003.png",
        labels=(0, 20, 255, 5),
        scenes=2,
        classes=21,
        foreign=(21, r"holds the class 21, but the classes are 0..20"),
        root=r"JPEGImages, SegmentationClass and ImageSets/Segmentation; download: true fetches it",
    ),
    "sbd": Layout(
        make=sbd,
        open=SBDSegmentation,
        name="2007_000003",
        photo="dataset/img/2007_000003.jpg",
        mask="dataset/cls/2007_000003.mat",
        labels=(0, 20, 5),
        scenes=3,
        classes=21,
        foreign=(21, r"holds the value 21; expected the classes 0..20"),
        root=r"dataset/img/<photo>.jpg, .*dataset/cls/<photo>.mat, .*dataset/train.txt\. Get benchmark.tgz from https://",
    ),
}
