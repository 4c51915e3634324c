"""`ImageFolder` and the readers behind it: the same labels from every form of mask, errors that name the file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lightning_attack.data import DataError, ImageFolder, SegmentationDataModule

CLASSES = ("sky", "road", "car")


def pixels(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def labels(height=6, width=8, seed=0):
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))


def save(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image = Image.fromarray(array, mode="P")
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


@pytest.fixture
def tree(tmp_path):
    """Two photos with masks, one of them in nested folders."""
    for seed, name in enumerate(("b", "town/day/a")):
        save(tmp_path / "photos" / f"{name}.png", pixels(seed=seed))
        save(tmp_path / "masks" / f"{name}.png", labels(seed=seed))
    return tmp_path


def folder(tree, **arguments):
    return ImageFolder(str(tree / "photos"), **{"masks": str(tree / "masks"), "classes": CLASSES} | arguments)


def test_photos_masks_and_names(tree):
    data = folder(tree)
    assert len(data) == 2
    assert data.classes == CLASSES
    for index, (name, seed) in enumerate((("b", 0), ("town/day/a", 1))):
        scene = data[index]
        assert scene.name == name
        assert np.array_equal(scene.image, pixels(seed=seed))
        assert np.array_equal(scene.mask, labels(seed=seed))


@pytest.mark.parametrize("spelled", ["photos", "masks/../photos", "link"])
def test_masks_beside_photos(tree, spelled):
    (tree / "link").symlink_to(tree / "photos")
    for name in ("b", "town/day/a"):
        save(tree / "photos" / f"{name}_mask.png", labels())
    assert len(folder(tree, masks=str(tree / spelled), mask_suffix="_mask.png")) == 2


def test_palette_mask_equals_grey_mask(tree):
    save(tree / "masks" / "b.png", labels(), palette=True)
    with Image.open(tree / "masks" / "b.png") as image:
        assert image.mode == "P"
    assert np.array_equal(folder(tree)[0].mask, labels())


def test_without_masks(tree):
    data = ImageFolder(str(tree / "photos"))
    assert data.classes is None
    assert [data[index].mask for index in range(2)] == [None, None]
    assert "mask" not in SegmentationDataModule(data).scenes()[0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_photos_of_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(pixels()).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    scene = ImageFolder(str(tmp_path))[0]
    assert scene.image.shape == (6, 8, 3)
    assert scene.image.dtype == np.uint8
    assert np.array_equal(scene.image, np.array(image.convert("RGB")))


def test_missing_mask(tree):
    (tree / "masks" / "town" / "day" / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 photos have no mask; the first is '.*masks/town/day/a.png'"):
        folder(tree)


def test_masks_need_classes(tree):
    with pytest.raises(DataError, match="needs classes"):
        folder(tree, classes=None)


def test_no_photos(tmp_path):
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(DataError, match=r"no photos in '.*' \(looked for .jpg"):
        ImageFolder(str(tmp_path))
    with pytest.raises(DataError, match=r"no folder '.*nowhere'"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_two_photos_of_one_name(tree):
    save(tree / "photos" / "b.JPG", pixels())
    with pytest.raises(DataError, match=r"b.JPG' and '.*b.png' would both be saved as 'b.png'"):
        folder(tree)


def break_mask_class(tree):
    save(tree / "masks" / "b.png", np.full((6, 8), 3, np.uint8))


def break_mask_size(tree):
    save(tree / "masks" / "b.png", labels(8, 6))


def break_mask_colour(tree):
    save(tree / "masks" / "b.png", pixels())


def break_mask_depth(tree):
    save(tree / "masks" / "b.png", labels().astype(np.uint16))


def break_mask_garbage(tree):
    (tree / "masks" / "b.png").write_bytes(b"garbage")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def break_mask_truncated(tree):
    save(tree / "masks" / "b.png", labels())
    truncate(tree / "masks" / "b.png")


def break_photo_truncated(tree):
    truncate(tree / "photos" / "b.png")


def break_photo_garbage(tree):
    (tree / "photos" / "b.png").write_bytes(b"garbage")


def break_photo_empty(tree):
    (tree / "photos" / "b.png").write_bytes(b"")


def break_photo_folder(tree):
    (tree / "photos" / "b.png").unlink()
    (tree / "photos" / "b.png").mkdir()


def break_photo_size(tree):
    """A few bytes that claim to be ten gigabytes."""
    content = bytearray((tree / "photos" / "b.png").read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tree / "photos" / "b.png").write_bytes(content)


BROKEN = [
    (break_mask_class, "mask of 'b' holds the class 3, but the classes are 0..2"),
    (break_mask_size, r"mask of 'b' is 8x6, but its photo is 6x8"),
    (break_mask_colour, "masks/b.png' has mode RGB; expected one class number per pixel"),
    (break_mask_depth, "masks/b.png' has mode I;16"),
    (break_mask_garbage, "mask '.*masks/b.png' cannot be read"),
    (break_mask_truncated, "mask '.*masks/b.png' cannot be read"),
    (break_photo_truncated, "photo '.*photos/b.png' cannot be read"),
    (break_photo_garbage, "photo '.*photos/b.png' cannot be read"),
    (break_photo_empty, "photo '.*photos/b.png' cannot be read: it is an empty file; download it again"),
    (break_photo_size, r"photo '.*photos/b.png' cannot be read \(Image size \(3600000000 pixels\) exceeds limit"),
    (break_photo_folder, "photo '.*photos/b.png' cannot be read"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_broken_file_is_named_before_the_run_and_in_it(tree, damage, message):
    SegmentationDataModule(folder(tree)).check()
    damage(tree)
    data = SegmentationDataModule(folder(tree))
    with pytest.raises(DataError, match=message):
        data.check()
    with pytest.raises(DataError, match=message):
        list(data.predict_dataloader())


@pytest.mark.filterwarnings("ignore")  # Pillow grumbles at what it still reads
def test_no_damage_of_a_photo_gives_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(pixels(16, 16)).save(path)
        content = path.read_bytes()
        refused = 0
        for _ in range(40):
            damaged = bytearray(content)
            for position in rng.integers(0, min(len(damaged), 200), 3):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                assert ImageFolder(str(tmp_path))[0].image.dtype == np.uint8
            except DataError as error:
                refused += str(path) in str(error)
        assert refused > 0
        path.unlink()


def test_names_and_masks_that_do_not_fit(tree):
    """Found while the folder is listed: masks under other names, names that are no text, a class named twice."""
    (tree / "masks" / "b.png").rename(tree / "masks" / "b_labels.tif")
    with pytest.raises(
        DataError, match=r"1 of 2 photos have no mask; .*\nthere is 'b_labels.tif': mask_suffix=_labels.t"
    ):
        folder(tree)
    with pytest.raises(DataError, match="classes names 'a' twice"):
        folder(tree, classes=["a", "b", "a"])
    (tree / "photos" / "b.png").rename(tree / "photos" / "b\udcff.png")
    with pytest.raises(DataError, match=r"the name of '.*\\udcff.png' is not in UTF-8"):
        folder(tree)
