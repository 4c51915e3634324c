"""SBD's `.mat` files, and `train_aug` in its two forms."""

import numpy as np
import pytest
from scipy.io import savemat

from lightning_attack.data import DataError, SBDSegmentation, SegmentationDataModule, TrainAug, VOCSegmentation
from tests.data.trees import LAYOUTS, SIZE, png, sbd, values, voc

LAYOUT = LAYOUTS["sbd"]


@pytest.mark.parametrize("place", [".", "dataset", "benchmark_RELEASE/dataset"])
def test_root_may_be_the_unpacked_folder(tmp_path, place):
    sbd(tmp_path / "made")
    (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "made" / "dataset").rename(tmp_path / "root" / place)
    assert len(SBDSegmentation(str(tmp_path / "root"), split="val")) == 2


def test_mat_as_matlab_writes_it(tmp_path):
    """The real ones have boundaries too, and lie compressed in files of version 5."""
    sbd(tmp_path)
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros(SIZE)]] * 20
    labels = values(0, 15, 7)
    content = {"GTcls": {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": [[7], [15]]}}
    savemat(tmp_path / LAYOUT.mask, content, do_compression=True)
    assert np.array_equal(SBDSegmentation(str(tmp_path))[0].mask, labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTinst": {"Segmentation": values(1)}}, r"cannot be read \(KeyError: 'GTcls'\); expected SBD's GTcls"),
        ({"GTcls": {"Boundaries": values(1)}}, "cannot be read .*; expected SBD's GTcls with a Segmentation"),
        ({"GTcls": {"Segmentation": np.zeros((2, 3, 4), np.uint8)}}, "holds no Segmentation of height x width"),
        ({"GTcls": {"Segmentation": np.full(SIZE, 0.5)}}, "holds no Segmentation of height x width in 8 bits"),
    ],
)
def test_another_mat_file(tmp_path, content, message):
    sbd(tmp_path)
    savemat(tmp_path / LAYOUT.mask, content)
    with pytest.raises(DataError, match=f"2007_000003.mat' {message}"):
        SBDSegmentation(str(tmp_path))[0]


@pytest.mark.parametrize("compressed", [True, False])
def test_download_that_broke_off(tmp_path, compressed):
    """Cut off anywhere; flipped bits inside are not tried, since scipy itself crashes at some of them."""
    sbd(tmp_path)
    path = tmp_path / LAYOUT.mask
    savemat(path, {"GTcls": {"Segmentation": values(0, 20, 5)}}, do_compression=compressed)
    content, data = path.read_bytes(), SBDSegmentation(str(tmp_path))
    assert data[0].mask.max() == 20
    for length in range(0, len(content) - 8, 7):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"mask '.*2007_000003.mat' cannot be read"):
            data[0]


def test_train_aug_from_sbds_own_files(tmp_path):
    voc(tmp_path)
    sbd(tmp_path)
    data = TrainAug(str(tmp_path), str(tmp_path))
    # VOC train, then what is new in SBD; 1 and 2 are VOC val's.
    assert data.names == ["2007_000003", "2008_000004", "2008_000005"]
    assert [data[index].name for index in range(len(data))] == data.names
    assert np.array_equal(data[0].mask, values(*LAYOUTS["voc"].labels))  # with VOC's borders
    assert np.array_equal(data[1].mask, values(*LAYOUT.labels))
    SegmentationDataModule(data).check()


def test_train_aug_names_what_is_missing(tmp_path):
    voc(tmp_path / "voc")
    sbd(tmp_path / "sbd")
    with pytest.raises(DataError, match=r"no PASCAL VOC in '.*/sbd'"):
        TrainAug(str(tmp_path / "sbd"), str(tmp_path / "voc"))
    with pytest.raises(DataError, match=r"no SBD in '.*/voc'"):
        TrainAug(str(tmp_path / "voc"), str(tmp_path / "voc"))
    (tmp_path / "sbd/dataset/val.txt").unlink()
    with pytest.raises(DataError, match=r"no split 'val' in '.*/dataset'; there are: train"):
        TrainAug(str(tmp_path / "voc"), str(tmp_path / "sbd"))


def test_train_aug_as_a_split_of_voc(tmp_path):
    voc(tmp_path)
    more = tmp_path / "VOC2012" / "SegmentationClassAug"
    png(more / "2007_000003.png", values(1))  # the download has masks for VOC's photos too; VOC's own come first
    data = VOCSegmentation(str(tmp_path), split="train_aug")
    assert [data[index].name for index in range(len(data))] == ["2007_000003", "2008_000004"]
    assert np.array_equal(data[0].mask, values(*LAYOUTS["voc"].labels))
    png(more / "2008_000004.png", values(9))
    assert np.array_equal(data[1].mask, values(9))


def test_train_aug_without_its_list(tmp_path):
    voc(tmp_path)
    (tmp_path / "VOC2012/ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(DataError, match=r"no split 'train_aug' in .*SegmentationClassAug, or use TrainAug with SBD"):
        VOCSegmentation(str(tmp_path), split="train_aug")
