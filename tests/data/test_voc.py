"""PASCAL VOC's own layout, and its download with the network cut off."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lightning_attack.data import DataError, SegmentationDataModule, VOCSegmentation

LABELS = np.array([[0, 1, 20], [15, 255, 0]], np.uint8)


def make(voc, palette=True, names=("2007_000001", "2007_000002")):
    """A tiny `VOC2012`: JPEG photos, palette masks, two splits."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (3, 2), (40, 90 + number, 200)).save(voc / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(LABELS, mode="P" if palette else "L")
        if palette:
            mask.putpalette([value * 5 % 256 for value in range(768)])
        mask.save(voc / "SegmentationClass" / f"{name}.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in names))
    (voc / "ImageSets/Segmentation/train.txt").write_text(f"{names[0]}\n")


@pytest.mark.parametrize("place", ["VOC2012", "VOCdevkit/VOC2012", "."])
@pytest.mark.parametrize("palette", [True, False])
def test_labels_and_names(tmp_path, place, palette):
    make(tmp_path / place, palette)
    data = VOCSegmentation(str(tmp_path))
    assert [data[index].name for index in range(len(data))] == ["2007_000001", "2007_000002"]
    assert len(data.classes) == 21
    assert np.array_equal(data[1].mask, LABELS)  # indices, not the palette's colours
    assert data[1].image.shape == (2, 3, 3)
    assert np.abs(data[0].image.astype(int) - (40, 90, 200)).max() < 8  # JPEG
    assert len(VOCSegmentation(str(tmp_path), split="train")) == 1
    SegmentationDataModule(data).check()


def test_missing_root_shows_the_expected_tree(tmp_path):
    root = tmp_path / "nowhere"
    with pytest.raises(DataError, match="JPEGImages, SegmentationClass and ImageSets/Segmentation; download") as error:
        VOCSegmentation(str(root))
    assert f"'{root}/VOC2012' or '{root}/VOCdevkit/VOC2012'" in str(error.value)


def test_unknown_split(tmp_path):
    make(tmp_path / "VOC2012")
    with pytest.raises(DataError, match=r"no split 'test' in '.*'; there are: train, val"):
        VOCSegmentation(str(tmp_path), split="test")


@pytest.mark.parametrize(("folder", "suffix"), [("JPEGImages", "jpg"), ("SegmentationClass", "png")])
def test_missing_file(tmp_path, folder, suffix):
    make(tmp_path / "VOC2012")
    (tmp_path / "VOC2012" / folder / f"2007_000002.{suffix}").unlink()
    with pytest.raises(DataError, match=f"{folder}/2007_000002.{suffix}' cannot be read"):
        SegmentationDataModule(VOCSegmentation(str(tmp_path))).check()


def test_foreign_class(tmp_path):
    make(tmp_path / "VOC2012")
    Image.fromarray(LABELS + 1).save(tmp_path / "VOC2012/SegmentationClass/2007_000001.png")  # 20 becomes 21
    with pytest.raises(DataError, match=r"mask of '2007_000001' holds the class 21, but the classes are 0..20"):
        SegmentationDataModule(VOCSegmentation(str(tmp_path))).check()


def test_empty_split(tmp_path):
    make(tmp_path / "VOC2012")
    (tmp_path / "VOC2012/ImageSets/Segmentation/none.txt").write_text("\n")
    with pytest.raises(DataError, match="dataset has no photos"):
        SegmentationDataModule(VOCSegmentation(str(tmp_path), split="none")).check()


def test_download_only_if_it_is_not_there(tmp_path, monkeypatch):
    asked = []

    def fetch(url, root, filename=None, md5=None):
        asked.append(url)
        make(tmp_path / "made" / "VOCdevkit/VOC2012")
        (tmp_path / "made/VOCdevkit/VOC2012/ImageSets/Segmentation/trainval.txt").write_text("2007_000001\n")
        shutil.copytree(tmp_path / "made", root, dirs_exist_ok=True)

    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", fetch)
    root = str(tmp_path / "root")
    with pytest.raises(DataError, match="download: true fetches it"):
        VOCSegmentation(root)
    assert not asked
    for _ in range(2):
        data = VOCSegmentation(root, download=True)
        assert len(data) == 2
        assert np.array_equal(data[0].mask, LABELS)
    assert len(asked) == 1
    assert "VOCtrainval_11-May-2012" in asked[0]
