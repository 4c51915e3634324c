"""What is in the folder is what is attacked; lists of photos as other programs write them."""

import os
import re
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from lightning_attack.common.atomic import atomic_write
from lightning_attack.data import ADE20K, CamVid, Cityscapes, DataError, ImageFolder, SegmentationDataModule
from lightning_attack.data.split_lists import read_split
from tests.data.trees import LAYOUTS, photo, png, values


def names(root, *masks, **settings):
    data = ImageFolder(str(root), *map(str, masks), **settings)
    return [data[index].name for index in range(len(data))]


def test_hidden_files_and_those_of_other_programs_are_not_listed(tmp_path):
    photo(tmp_path / "a.png")
    for clutter in (".b.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/c.png", "east/.git/d.png",
                    "@eaDir/a.png/thumb.jpg", "Thumbs.db"):  # fmt: skip
        photo(tmp_path / "made.png")
        (tmp_path / clutter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made.png").rename(tmp_path / clutter)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(tmp_path) == ["a"]
        assert names(tmp_path / "__MACOSX") == ["c"]  # what the user names is meant


def test_files_that_are_passed_over_are_counted(tmp_path):
    for name in ("a.png", "b.heic", "c.HEIC", "d.txt", "e"):
        photo(tmp_path / "made.png")
        (tmp_path / "made.png").rename(tmp_path / name)
    with pytest.warns(UserWarning, match=r"4 of the files in '.*' are passed over: 2 .heic, 1 .txt, 1 without suffix"):
        assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPG", "JFIF"])
def test_suffixes_of_jpeg(tmp_path, suffix):
    Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / f"a.{suffix}", "JPEG")
    assert names(tmp_path) == ["a"]


def test_linked_folders_are_entered_once(tmp_path):
    photo(tmp_path / "elsewhere/deep/b.png", seed=1)
    photo(tmp_path / "photos/a.png")
    photo(tmp_path / "photos/zoo/c.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "photos/east")
    assert names(tmp_path / "photos") == ["a", "east/deep/b", "zoo/c"]
    # Links to what is listed anyway, to a folder above, and round in a circle.
    os.symlink(tmp_path / "photos/zoo", tmp_path / "photos/again")
    os.symlink(tmp_path / "photos", tmp_path / "photos/zoo/above")
    os.symlink(tmp_path / "photos", tmp_path / "elsewhere/back")
    with pytest.warns(
        UserWarning, match=r"again' is a link to '.*zoo', whose files are listed already.* 2 other links"
    ):
        assert names(tmp_path / "photos") == ["a", "east/deep/b", "zoo/c"]
    os.symlink(tmp_path / "nowhere.png", tmp_path / "photos/z.png")
    with pytest.raises(DataError, match=r"photo '.*z.png' cannot be read"):
        names(tmp_path / "photos")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_with_accents_are_matched(tmp_path, form):
    other = "NFD" if form == "NFC" else "NFC"
    name = "stra\u00dfe/caf\u00e9 \u00fc"
    photo(tmp_path / "photos" / unicodedata.normalize(form, f"{name}.png"))
    png(tmp_path / "masks" / unicodedata.normalize(other, f"{name}.png"), values(0, 1))
    photo(tmp_path / "adversarial" / unicodedata.normalize(other, f"{name}.png"))
    data = ImageFolder(str(tmp_path / "photos"), str(tmp_path / "masks"), ["a", "b"])
    assert data[0].name == name
    assert np.array_equal(data[0].mask, values(0, 1))
    module = SegmentationDataModule(
        data,
        adversarial_root=str(tmp_path / "adversarial"),
        target_masks=str(tmp_path / "masks"),
        region_masks=str(tmp_path / "masks"),
    )
    module.check(2)
    photo(tmp_path / "photos" / unicodedata.normalize(other, f"{name}.png"))
    with pytest.raises(DataError, match="would both be saved as"):
        ImageFolder(str(tmp_path / "photos"))


@pytest.mark.parametrize(
    ("kind", "clutter"),
    [
        ("cityscapes", "leftImg8bit/val/lindau/._lindau_000000_000019_leftImg8bit.png"),
        ("cityscapes", "leftImg8bit/val/.ipynb_checkpoints/x_leftImg8bit.png"),
        ("ade20k", "images/validation/._ADE_val_00000001.jpg"),
        ("camvid", "val/._0016E5_00001.png"),
    ],
)
def test_all_data_sets_list_alike(tmp_path, kind, clutter):
    layout = LAYOUTS[kind]
    layout.make(tmp_path)
    photo(tmp_path / clutter)
    assert len(layout(tmp_path)) == layout.scenes
    assert {"cityscapes": Cityscapes, "ade20k": ADE20K, "camvid": CamVid}[kind] is layout.open


NAMES = ["2007_000001", "2007_000002", "a b.c".replace(" ", "_")]
LISTS = {
    "plain": "\n".join(NAMES).encode(),
    "mark": b"\xef\xbb\xbf" + "\r\n".join(NAMES).encode(),
    "utf16": "\r\n".join(NAMES).encode("utf-16"),
    "utf16-be": b"\xfe\xff" + "\n".join(NAMES).encode("utf-16-be"),
    "utf16 without mark": "\n".join(NAMES).encode("utf-16-le"),
    "old Mac": "\r".join(NAMES).encode(),
    "suffixes": "\n".join(f"{name}.JPG" for name in NAMES).encode(),
    "folders": "\n".join(f"JPEGImages/{name}.jpg" for name in NAMES).encode(),
    "windows": "\n".join(f"JPEGImages\\{name}.jpg" for name in NAMES).encode(),
    "pairs": "\n".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in NAMES).encode(),
    "table": "\n".join(f"{name}.jpg,{name}.png" for name in NAMES).encode(),
    "comments": ("# photos of val\n\n" + "  # more\n".join(NAMES) + "\n \n#end").encode(),
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_lists_of_photos(tmp_path, content):
    (tmp_path / "val.txt").write_bytes(content)
    assert read_split(tmp_path / "val.txt").names == NAMES


def test_a_name_twice_counts_once(tmp_path):
    (tmp_path / "val.txt").write_text("b\na\n\nb.jpg\na\n")
    with pytest.warns(UserWarning, match="'b' in lines 1 and 4, 'a' in lines 2 and 5"):
        assert read_split(tmp_path / "val.txt").names == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg b.png\n", r"line 1 of '.*val.txt' is 'a.jpg b.png'; expected the name of one photo"),
        (b"a\nb -1\n", "line 2 of .* Lists with 1 and -1 say which photos show a class"),
        (b"\xff\x00\xd8", "cannot be read .*; save it as UTF-8 text"),
    ],
)
def test_lists_that_say_something_else(tmp_path, content, message):
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "val.txt")


@pytest.mark.parametrize("kind", ["voc", "sbd"])
def test_a_listed_photo_that_is_not_there(tmp_path, kind):
    layout = LAYOUTS[kind]
    layout.make(tmp_path)
    file = next(tmp_path.rglob("train.txt"))
    file.write_text(f"# first\n{layout.name}.jpg\nmissing\n")
    with pytest.raises(DataError, match=rf"missing.*line 3 of '{re.escape(str(file))}'"):
        SegmentationDataModule(layout(tmp_path, split="train")).check()


def test_names_as_long_as_file_systems_allow(tmp_path):
    name = "n" * 251
    with atomic_write(tmp_path / f"{name}.png") as unfinished:
        assert len(os.fsencode(unfinished.name)) <= 255
        assert unfinished.suffix == ".png"
        with atomic_write(tmp_path / f"{name[:-1]}m.png") as other:
            assert other != unfinished
            other.write_bytes(b"1")
        unfinished.write_bytes(b"2")
    assert (tmp_path / f"{name}.png").read_bytes() == b"2"
    assert len([*tmp_path.iterdir()]) == 2
