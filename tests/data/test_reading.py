"""Pixels mean what the reader says, or there is an error: orientation, depth, palettes, colours, settings of masks."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torchvision
from PIL import Image, ImageOps, TiffTags, features
from PIL.TiffImagePlugin import XMP, ImageFileDirectory_v2

from lightning_attack.data import Cityscapes, DataError, ImageFolder, SegmentationDataModule, VOCSegmentation
from lightning_attack.data.files import read_mask, read_photo, size_of_photo
from lightning_attack.data.mask_values import MaskReader
from lightning_attack.data.palettes import BUILT_IN, colour_map
from lightning_attack.data.survey import Survey
from tests.data.trees import LAYOUTS, cityscapes, values

CLASSES = ["sky", "road", "car"]
LABELS = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)


def png(path, rows, bits, colour_type=0, palette=None):
    """A PNG as its specification says, bit by bit: Pillow writes no grey of 2 or 4 bits and no colours of 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(rows)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    rows = rows.reshape(rows.shape[0], -1)

    def packed(row):
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))

    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    head = struct.pack(">IIBBBBB", rows.shape[1] // channels, rows.shape[0], bits, colour_type, 0, 0, 0)
    colours = b"" if palette is None else chunk(b"PLTE", bytes(np.asarray(palette, np.uint8).ravel()))
    lines = zlib.compress(b"".join(b"\0" + packed(row) for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colours + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


def folder(tmp_path, masks=(), **settings):
    """An `ImageFolder` with a photo for each mask (an array, or a function that writes it to a path)."""
    for number, mask in enumerate(masks):
        path = tmp_path / "masks" / f"p{number}.png"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "photos").mkdir(exist_ok=True)
        mask(path) if callable(mask) else Image.fromarray(np.asarray(mask, np.uint8)).save(path)
        with Image.open(path) as image:
            Image.new("RGB", image.size, (9, 8, 7)).save(tmp_path / "photos" / f"p{number}.png")
    settings.setdefault("classes", CLASSES)
    return ImageFolder(str(tmp_path / "photos"), str(tmp_path / "masks"), **settings)


def in_palette(indices, colours):
    """Writes a mask with a palette."""

    def write(path):
        image = Image.fromarray(np.asarray(indices, np.uint8), mode="P")
        image.putpalette([value for colour in colours for value in colour])
        image.save(path)

    return write


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright(tmp_path, orientation, suffix):
    shown = np.zeros((16, 24, 3), np.uint8)
    shown[:8, :8], shown[8:, 16:], shown[8:, :8] = 255, (255, 0, 0), (0, 0, 255)  # no symmetry
    stored = Image.fromarray(shown)
    for turn in {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, []):
        stored = stored.transpose(Image.Transpose(turn))
    tag = Image.Exif()
    tag[0x0112] = orientation
    lossless = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    stored.save(tmp_path / f"a.{suffix}", exif=tag, **lossless)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert np.array_equal(np.array(ImageOps.exif_transpose(image)), read_photo(tmp_path / f"a.{suffix}"))
    assert np.abs(read_photo(tmp_path / f"a.{suffix}").astype(int) - shown).max() <= 4
    assert size_of_photo(tmp_path / f"a.{suffix}") == (16, 24)


def test_the_size_of_a_tiff_that_is_turned_by_its_xmp(tmp_path):
    """Pillow does not turn that size before it loads the photo."""
    tags = ImageFileDirectory_v2()
    tags.tagtype[XMP] = TiffTags.BYTE
    tags[XMP] = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    Image.new("RGB", (16, 24)).save(tmp_path / "a.tif", tiffinfo=tags)
    assert size_of_photo(tmp_path / "a.tif") == read_photo(tmp_path / "a.tif").shape[:2] == (16, 24)


def test_masks_are_upright(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(LABELS)).save(tmp_path / "a.png", exif=tag)
    assert np.array_equal(read_mask(tmp_path / "a.png"), LABELS)


def test_a_mask_without_the_orientation_of_its_photo(tmp_path):
    data = folder(tmp_path, [LABELS])
    Image.new("RGB", LABELS.shape).save(tmp_path / "photos" / "p0.png")
    with pytest.raises(DataError, match=r"is 2x4, but its photo is 4x2 .* not turned by the EXIF orientation"):
        SegmentationDataModule(data).check()


@pytest.mark.parametrize(("bits", "top"), [(1, 1), (2, 3), (4, 15), (8, 255)])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_masks_of_few_bits_keep_their_numbers(tmp_path, bits, top, colour_type):
    numbers = np.random.default_rng(bits).integers(0, top + 1, (5, 7))
    numbers[0, 0] = top
    palette = np.random.default_rng(0).integers(0, 256, (2**bits, 3)) if colour_type == 3 else None
    png(tmp_path / "a.png", numbers, bits, colour_type, palette)
    assert np.array_equal(read_mask(tmp_path / "a.png"), numbers)


@pytest.mark.parametrize("bits", [2, 4])
def test_tiff_masks_of_few_bits(tmp_path, bits):
    """Two rows of four values, packed; tags as the TIFF specification numbers them."""
    numbers = np.array([[0, 1, 2, 3], [3, 3, 1, 0]])
    data = b"".join(int("".join(format(v, f"0{bits}b") for v in row), 2).to_bytes(bits // 2, "big") for row in numbers)
    tags = [(256, 4), (257, 2), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    assert np.array_equal(read_mask(tmp_path / "a.tif"), numbers)


@pytest.mark.parametrize(
    ("header", "pixels", "remedy"),
    [
        (b"P5 3 1 150\n", b"\1\2\3", "write 255 in place of 150 into its header, or save"),
        (b"P2 3 1 150\n", b"1 2 3", "write 255 in place of 150"),
        (b"P5 3 1 1000\n", b"\0\1\0\2\0\3", "all the same, save them as 8-bit PNG"),
        (b"P6 1 1 150\n", b"\1\1\1", "write 255"),
        (b"P6 1 1 65535\n", b"\0\1" * 3, "save"),
        (b"P3 1 1 1000\n", b"1 1 1", "save"),
    ],
)
def test_masks_that_are_shares_of_a_maxval(tmp_path, header, pixels, remedy):
    """Pillow multiplies 1, 2, 3 of 150 to 2, 3, 5."""
    maxval = int(header.split()[-1])
    (tmp_path / "a.pgm").write_bytes(header + pixels)
    with pytest.raises(DataError, match=f"a.pgm' has the maxval {maxval}, .* expected 255, .*{remedy}"):
        MaskReader("abcdef")(tmp_path / "a.pgm")


@pytest.mark.parametrize("content", [b"P5 3 1 255\n\1\2\3", b"P2 3 1 255\n1 2 3"])
def test_masks_with_a_maxval_of_255(tmp_path, content):
    (tmp_path / "a.pgm").write_bytes(content)
    assert read_mask(tmp_path / "a.pgm").tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_scaled(tmp_path, colour_type, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, channels))
    deep[0, 0], deep[0, 1] = 65535, 128
    png(tmp_path / "a.png", deep, 16, colour_type)
    colours = deep[..., :3] if channels > 2 else np.repeat(deep[..., :1], 3, 2)
    assert np.array_equal(read_photo(tmp_path / "a.png"), np.floor(colours / 257 + 0.5))


@pytest.mark.parametrize(("white", "bits"), [(1023, 10), (4095, 12), (16383, 14)])
def test_camera_values_in_16_bits_need_their_white(tmp_path, white, bits):
    deep = np.random.default_rng(0).integers(white // 2, white + 1, (5, 6, 3))
    png(tmp_path / "a.png", deep, 16, 2)
    with pytest.raises(
        DataError, match=rf"brightest value is \d+ of 65535; are these {bits}-bit .* white_level: {white}"
    ):
        ImageFolder(str(tmp_path))[0]
    scaled = ImageFolder(str(tmp_path), white_level=white)[0].image
    assert np.abs(scaled - deep * 255 / white).max() <= 0.5
    with pytest.raises(DataError, match="above white_level: 300"):
        ImageFolder(str(tmp_path), white_level=300)[0]


def test_16_bits_that_cannot_be_read_exactly(tmp_path):
    tags = [(256, 1), (257, 1), (259, 1), (262, 2), (273, 8), (277, 3), (278, 1), (279, 6)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHII", 258, 3, 3, 14 + 2 + 12 * 9 + 4))
    body = struct.pack("<HHH", 65535, 40000, 300)
    ends = struct.pack("<H", 9) + b"".join(entries) + bytes(4) + struct.pack("<HHH", 16, 16, 16)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 14) + body + ends)
    with pytest.raises(DataError, match=r"a.tif' has 16 bits per colour in a TIFF file; save it with 8, or as PNG"):
        ImageFolder(str(tmp_path))[0]


def tiff(path, tags, *blocks):
    """A TIFF as its specification says: `tags` by number (one value, or a block's place), and what they point at."""
    start = 8 + 2 + 12 * len(tags) + 4
    places = [start + sum(map(len, blocks[:number])) for number in range(len(blocks))]
    entries = b"".join(
        struct.pack("<HHII", tag, kind, count, places[value[0]] if isinstance(value, tuple) else value)
        for tag, (kind, count, value) in sorted(tags.items())
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + b"".join(blocks))


def test_tiff_photos_that_would_be_read_otherwise(tmp_path):
    size = {256: (4, 1, 2), 257: (4, 1, 1), 259: (3, 1, 1), 278: (4, 1, 1)}
    planes = [struct.pack("<HH", value, 65535) for value in (65535, 40000, 300)]
    lists = [struct.pack("<HHH", 16, 16, 16), struct.pack("<III", 4, 4, 4)]
    first = 8 + 2 + 12 * 10 + 4 + sum(map(len, lists)) + 12
    offsets = struct.pack("<III", first, first + 4, first + 8)
    tiff(tmp_path / "planes.tif", size | {258: (3, 3, (0,)), 262: (3, 1, 2), 273: (4, 3, (2,)), 277: (3, 1, 3),
         279: (4, 3, (1,)), 284: (3, 1, 2)}, *lists, offsets, *planes)  # fmt: skip
    tiff(tmp_path / "white.tif", size | {258: (3, 1, 16), 262: (3, 1, 0), 273: (4, 1, (0,)), 277: (3, 1, 1),
         279: (4, 1, 4)}, struct.pack("<HH", 0, 65535))  # fmt: skip
    pages = [Image.new("RGB", (8, 4), (value, 0, 0)) for value in (10, 120, 250)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.webp", save_all=True, append_images=pages[1:])
    for name, says in (
        ("planes.tif", "has 16 bits per colour in a TIFF file; save it with 8"),
        ("white.tif", "is a TIFF file in which 0 is white"),
        ("pages.tif", "holds 3 pictures of one size; save each as a file of its own"),
        ("moving.webp", "holds 3 pictures of one size"),
    ):
        with pytest.raises(DataError, match=says):
            read_photo(tmp_path / name)
    with pytest.raises(DataError, match=r"mask '.*pages.tif' holds 3 pictures"):
        read_mask(tmp_path / "pages.tif")
    preview = pages[0].resize((4, 2))
    pages[0].save(tmp_path / "preview.tif", save_all=True, append_images=[preview])
    assert read_photo(tmp_path / "preview.tif").shape == (4, 8, 3)


def test_built_in_colours():
    """Against sources that are not ours: the formula of VOC's devkit, torchvision's copy of Cityscapes' labels."""
    for number in [*range(21), 255]:
        red, green, blue, rest = 0, 0, 0, number
        for shift in range(7, -1, -1):
            red, green, blue = (
                red | (rest & 1) << shift,
                green | (rest >> 1 & 1) << shift,
                blue | (rest >> 2 & 1) << shift,
            )
            rest >>= 3
        assert BUILT_IN["voc"].classes[red, green, blue] == number
    assert len(BUILT_IN["voc"].classes) == 22
    known = BUILT_IN["cityscapes"].classes
    for label in torchvision.datasets.Cityscapes.classes:
        shared = label.name in ("polegroup", "license plate")  # shown as pole and as car
        assert shared or known[label.color] == (label.train_id if 0 <= label.train_id < 19 else 255)
    assert len(known) == 19 + 10
    camvid = BUILT_IN["camvid"].classes
    assert [camvid[one] for one in [(128, 128, 128), (128, 64, 128), (60, 40, 222), (0, 128, 192), (0, 0, 0)]] == [
        0, 3, 4, 10, 255,
    ]  # fmt: skip
    assert sorted(camvid.values()) == sorted([*range(11), 4, 255])
    ade = BUILT_IN["ade20k"]
    assert [ade.classes[one] for one in [(120, 120, 120), (6, 230, 230), (150, 5, 61), (92, 0, 255)]] == [0, 2, 12, 149]
    # Road and skyscraper share a colour.
    assert len(ade.classes) == 150
    assert ade.ambiguous == {(140, 140, 140): (6, 48)}


@pytest.mark.parametrize(
    "palette",
    [[[10, 0, 0], [0, 20, 0], [0, 0, 30]], {"#0a0000": 0, "0, 20, 0": "road", "(0,0,30)": 2, "255 255 255": "ignore"}],
)
def test_masks_of_colours(tmp_path, palette):
    mask = np.where(LABELS == 255, 0, LABELS) if isinstance(palette, list) else LABELS
    colours = np.full((256, 3), 255, np.uint8)
    colours[:3] = [[10, 0, 0], [0, 20, 0], [0, 0, 30]]
    table = [*map(list, colours)]
    rgba = np.dstack([colours[mask], np.full(mask.shape, 255, np.uint8)])
    moved = (mask.astype(int) + 7) % 256  # another order of the same colours
    data = folder(tmp_path, [colours[mask], rgba, in_palette(moved, table[-7:] + table[:-7])], palette=palette)
    for index in range(3):
        assert np.array_equal(data[index].mask, mask)
    SegmentationDataModule(data, batch_size=3).check()


def test_indices_behind_the_end_of_a_palette(tmp_path):
    """255 is ignored by custom, though palettes often end before it; other indices have no colour."""
    shown = [(number, 0, 0) for number in range(20)]  # of 16 or fewer Pillow would write fewer bits
    mask = in_palette([[0, 1, 2, 255], [255, 2, 1, 0]], shown)
    given = {"palette": ["#000000", "#010000", "#020000"]}
    assert folder(tmp_path, [mask], **given)[0].mask.tolist() == [[0, 1, 2, 255], [255, 2, 1, 0]]
    assert (folder(tmp_path, [in_palette([[255, 255]], shown)], **given)[0].mask == 255).all()
    with pytest.raises(DataError, match=r"p0.png' holds the index 77, but its palette has 20 colours"):
        folder(tmp_path, [in_palette([[0, 77, 255]], shown)], **given)[0]


def test_a_colour_of_no_class_is_named_with_its_place_and_the_nearest(tmp_path):
    smooth = np.zeros((4, 5, 3), np.uint8)
    smooth[2, 3] = (120, 5, 0)
    data = folder(tmp_path, [smooth], palette="voc")
    expected = (
        r"p0.png' has the colour \(120, 5, 0\) at row 2, column 3, which is not in the palette voc \(as 1 of 20 pixels "
        r"are not\); the nearest there is \(128, 0, 0\), class 1\."
    )
    with pytest.raises(DataError, match=expected):
        data[0]


def test_a_colour_of_two_classes_is_refused_until_it_is_decided(tmp_path):
    mask = np.full((2, 2, 3), 140, np.uint8)
    classes = [str(number) for number in range(150)]
    with pytest.raises(
        DataError, match=r"\(140, 140, 140\) .* two classes .*: 6 and 48; decide with palette: {base: ade"
    ):
        folder(tmp_path, [mask], palette="ade20k", classes=classes)[0]
    decided = folder(tmp_path, [mask], palette={"base": "ade20k", "#8c8c8c": 48}, classes=classes)
    assert (decided[0].mask == 48).all()


def voc_palette(numbers):
    return [next(colour for colour, one in BUILT_IN["voc"].classes.items() if one == number) for number in numbers]


def test_voc_masks_with_another_order_are_read_by_colour(tmp_path):
    LAYOUTS["voc"].make(tmp_path)
    mask = tmp_path / "VOC2012/SegmentationClass/2007_000001.png"
    in_palette(values(0, 1, 2, 3), voc_palette([255, 20, 0, 5]))(mask)
    with pytest.warns(UserWarning, match=r"palette of voc in another order \(index 0 has the colour of class 255\)"):
        assert np.array_equal(VOCSegmentation(str(tmp_path))[0].mask, values(255, 20, 0, 5))
    in_palette(values(0, 1, 2, 3), [*voc_palette([0, 7]), (1, 2, 3), (4, 5, 6)])(mask)
    with pytest.raises(
        DataError, match=r"index 1 has the colour of class 7 of voc, and index 2 the colour \(1, 2, 3\)"
    ):
        VOCSegmentation(str(tmp_path))[0]
    in_palette(values(0, 1, 2, 3), [(9, 9, 8)] * 4)(mask)
    with pytest.warns(UserWarning, match="another palette than that of voc"):
        assert np.array_equal(VOCSegmentation(str(tmp_path))[0].mask, values(0, 1, 2, 3))
    in_palette(values(0, 1, 20, 3), voc_palette(range(21)))(mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(VOCSegmentation(str(tmp_path))[0].mask, values(0, 1, 20, 3))


def test_cityscapes_masks_with_another_palette_are_read_by_colour(tmp_path):
    cityscapes(tmp_path)
    in_palette(values(0, 1, 2), [(0, 0, 142), (128, 64, 128), (0, 0, 0)])(tmp_path / LAYOUTS["cityscapes"].mask)
    with pytest.warns(UserWarning, match="palette of cityscapes in another order"):
        assert np.array_equal(Cityscapes(str(tmp_path))[0].mask, values(13, 0, 255))


def test_a_folders_palettes_in_another_order(tmp_path):
    masks = [in_palette([[0, 1, 2]], voc_palette(order)) for order in ([0, 1, 2], [2, 0, 1])]
    with pytest.warns(UserWarning, match="palette of voc in another order.*palette: index reads indices"):
        assert [scene.mask.tolist() for scene in folder(tmp_path, masks)] == [[[0, 1, 2]], [[2, 0, 1]]]
    assert folder(tmp_path, palette="index")[1].mask.tolist() == [[0, 1, 2]]


def test_palettes_that_contradict_each_other(tmp_path):
    own = [(9, 9, 9), (70, 1, 2), (3, 200, 4)]
    data = folder(tmp_path, [in_palette([[0, 1, 2]], own), in_palette([[0, 1, 2]], [own[2], own[0], own[1]])])
    with pytest.raises(DataError, match=r"index 0 is \(9, 9, 9\) in '.*p0.png' and \(3, 200, 4\) in '.*p1.png'"):
        SegmentationDataModule(data).check()
    by_colour = folder(tmp_path, palette=[list(colour) for colour in own])
    assert [scene.mask.tolist() for scene in by_colour] == [[[0, 1, 2]], [[2, 0, 1]]]
    assert folder(tmp_path, palette="index")[1].mask.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        ({"label_map": {0: 0, 255: 1}}, [0, 255], [0, 1]),
        ({"label_map": {7: 2, 9: 255, 0: 1}}, [7, 9, 0], [2, 255, 1]),
        ({"label_offset": 1}, [0, 1, 3, 255], [255, 0, 2, 255]),
        ({"ignore_index": 2}, [0, 1, 2, 255], [0, 1, 255, 255]),
        ({"label_offset": 1, "ignore_index": 2}, [0, 1, 2, 3], [255, 0, 255, 2]),
        ({"label_map": {0: 1, 1: 0}, "ignore_index": 9}, [0, 1, 9], [1, 0, 255]),
    ],
)
def test_values_of_masks(tmp_path, settings, given, expected):
    data = folder(tmp_path, [[given]], **settings)
    assert data[0].mask.tolist() == [expected]
    SegmentationDataModule(data).check()


def test_a_value_that_the_map_does_not_know(tmp_path):
    with pytest.raises(DataError, match=r"p0.png' holds the value 254; label_map has 0, 255"):
        folder(tmp_path, [[[0, 254]]], label_map={0: 0, 255: 1})[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_map": {0: 0}, "label_offset": 1}, "label_map and label_offset both say"),
        ({"palette": "voc", "ignore_index": 0}, "palette and ignore_index both say"),
        ({"palette": "vok"}, "palette='vok': must be one of voc, cityscapes, ade20k, camvid, 'index'"),
        ({"palette": [[0, 0, 0]]}, "palette has 1 colours for 3 classes"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [0, 0, 0]]}, r"the colour \(0, 0, 0\) twice"),
        ({"palette": {"red": 0}}, "'red' is no colour"),
        ({"palette": {"#ff0000": "lorry"}}, "means 'lorry', which is no class"),
        ({"label_map": {0: 3}}, r"label_map: 0: 3: values must be 0..255 and classes 0..2"),
        ({"label_offset": -1}, "label_offset=-1"),
        ({"ignore_index": -1}, r"ignore_index=-1: .*\(-1 is stored as 255\)"),
        ({"white_level": 0}, "white_level=0"),
        ({"mask_suffix": "_m.png", "mask_pattern": "{name}.png"}, "mask_suffix and mask_pattern both say"),
        ({"mask_pattern": "mask.png"}, "is the same for each photo"),
        ({"mask_pattern": "{file}.png"}, "expected {name}, {stem} and {folder} only"),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, [LABELS], **settings)


def test_settings_of_masks_without_masks(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="give masks too"):
        ImageFolder(str(tmp_path), label_offset=1)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"mask_suffix": "_mask.png"}, "masks/east/a_mask.png"),
        ({"mask_pattern": "{name}_mask.png"}, "masks/east/a_mask.png"),
        ({"mask_pattern": "{folder}/gt/{stem}.png"}, "masks/east/gt/a.png"),
        ({"masks": "photos", "mask_suffix": "_mask.png"}, "photos/east/a_mask.png"),  # among the photos
        ({"masks": "photos"}, "photos/east/a.png"),
        ({"masks": "photos/masks"}, "photos/masks/east/a.png"),
    ],
)
def test_places_of_masks(tmp_path, settings, place):
    for path in (tmp_path / "photos/east", (tmp_path / place).parent):
        path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "photos/east/a.jpg")
    Image.fromarray(LABELS).save(tmp_path / place)
    masks = str(tmp_path / settings.pop("masks", "masks"))
    data = ImageFolder(str(tmp_path / "photos"), masks, CLASSES, **settings)
    assert [(scene.name, scene.mask.tolist()) for scene in data] == [("east/a", LABELS.tolist())]


def disk(size=32):
    """A mask of an object in 0 and 255."""
    rows, columns = np.mgrid[:size, :size]
    return np.where((rows - size / 2) ** 2 + (columns - size / 2) ** 2 < size**2 / 9, 255, 0).astype(np.uint8)


def test_masks_of_an_object_in_0_and_255(tmp_path):
    two = ["background", "thing"]
    for name in ("dataset", "train", "val"):
        data = folder(tmp_path, [disk(), np.zeros((32, 32), np.uint8)], classes=two)
        module = SegmentationDataModule(**{name: data})
        message = (
            f"data.{name}: all masks hold 0 and 255 only.*'thing' would occur nowhere.*label_map: {{0: 0, 255: 1}}"
        )
        with pytest.raises(DataError, match=message):
            module.check() if name == "dataset" else module.check_training(2)
    read = folder(tmp_path, classes=two, label_map={0: 0, 255: 1})
    SegmentationDataModule(read).check()
    assert read[0].mask.sum() == (disk() == 255).sum()
    SegmentationDataModule(folder(tmp_path, classes=two, ignore_index=255)).check()
    # A border is no object, and padding is not in the masks.
    ring = np.zeros((32, 32), np.uint8)
    ring[8], ring[:, 8] = 255, 255
    SegmentationDataModule(folder(tmp_path, [ring, ring], classes=two), size=(64, 40), fit="pad").check()


def test_nothing_is_labelled(tmp_path):
    with pytest.warns(UserWarning, match="no pixel in the masks of 1 photos is labelled, so there is nothing to score"):
        SegmentationDataModule(folder(tmp_path, [np.full((4, 4), 255)])).check()


def test_classes_that_count_from_1(tmp_path):
    with pytest.raises(DataError, match=r"holds the class 3, but the classes are 0..2 .*with label_offset: 1"):
        SegmentationDataModule(folder(tmp_path, [[[1, 3]]])).check()
    with pytest.warns(UserWarning, match="no mask of 1 holds class 0, 'sky', but others up to 2, 'car'"):
        SegmentationDataModule(folder(tmp_path, [[[1, 2]]])).check()


def test_train_ids_in_masks_of_label_ids(tmp_path):
    cityscapes(tmp_path)
    for city in ("lindau", "munster"):
        name = f"gtFine/val/{city}/{city}_000000_000019_gtFine_labelIds.png"
        Image.fromarray(values(0, 1, 18, 255, 13)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"hold no label above 18 \(and 255\).*name them \*_gtFine_labelTrainIds.png"):
        SegmentationDataModule(Cityscapes(str(tmp_path))).check()


def test_training_reads_every_photo_first(tmp_path):
    data = folder(tmp_path, [LABELS, LABELS, LABELS])
    SegmentationDataModule(train=data, val=data).check_training(3)
    (tmp_path / "photos/p2.png").write_bytes(b"damaged")
    for module in (SegmentationDataModule(train=data), SegmentationDataModule(val=data)):
        with pytest.raises(DataError, match=r"photo '.*p2.png' cannot be read"):
            module.check_training(3)
    SegmentationDataModule(train=data).check_training(3, learns=False)  # validate and test do not use them


def test_names_that_two_scenes_share(tmp_path):
    data = folder(tmp_path, [LABELS, LABELS])
    survey = Survey()
    survey.see(data[0], 0)
    survey.see(data[1], 1)
    survey.see(data[0], 0)  # the same one again
    survey.finish(data, "data.dataset")
    survey.see(data[1], 5)
    with pytest.raises(DataError, match=r"photos 1 and 5 are both named 'p1'.*must be unique"):
        survey.finish(data, "data.dataset")


def test_a_palette_by_the_command_line(tmp_path):
    """Colours and numbers are keys there, which YAML gives as text or as numbers."""
    from jsonargparse import ArgumentParser

    folder(tmp_path, [LABELS])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageFolder, "data")
    base = [f"--data.root={tmp_path / 'photos'}", f"--data.masks={tmp_path / 'masks'}", "--data.classes=[sky,road,car]"]
    for more in ("label_map={0: 0, 1: 1, 2: 2, 255: 0}", 'palette={"#ff0000": 0, "0,0,1": car}', "palette=voc",
                 "palette=[[0,0,0],[1,1,1],[2,2,2]]"):  # fmt: skip
        data = parser.instantiate(parser.parse_args([*base, f"--data.{more}"])).data
        assert len(data) == 1
    assert colour_map({"#ff0000": 0}, CLASSES).classes == {(255, 0, 0): 0}


@pytest.mark.parametrize(
    ("name", "settings", "form"),
    [
        ("a.jpg", {}, "a JPEG"),
        ("a.tif", {"compression": "jpeg"}, "a TIFF compressed as JPEG"),
        ("a.tif", {"compression": "tiff_lzw"}, None),
        ("a.webp", {"quality": 90}, "a lossy WebP"),
        ("a.webp", {"quality": 90, "exif": b"Exif\0\0"}, "a lossy WebP"),  # in the extended form
        ("a.webp", {"lossless": True}, None),
        ("a.jp2", {"irreversible": True, "quality_layers": [60]}, "a lossy JPEG 2000"),
        ("a.j2k", {"irreversible": True, "quality_layers": [60]}, "a lossy JPEG 2000"),
        ("a.jp2", {}, None),
        ("a.avif", {"quality": 90}, "an AVIF"),
        ("a.png", {}, None),
        ("a.bmp", {}, None),
    ],
)
def test_masks_whose_compression_changes_classes(tmp_path, name, settings, form):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    values = np.zeros((64, 64), np.uint8)
    values[10:40, 20:50] = 15
    Image.fromarray(values).save(tmp_path / name, **settings)
    if form is None:
        assert np.array_equal(MaskReader([*map(str, range(21))])(tmp_path / name), values)
        return
    with pytest.raises(DataError, match=f"is {form}, whose compression changes numbers .* save masks as PNG"):
        MaskReader([*map(str, range(21))])(tmp_path / name)


def test_masks_in_other_forms(tmp_path):
    """Grey in three channels or with an opaque alpha is grey; what would change classes or cannot hold them is not."""
    values = np.array([[0, 1], [2, 255]], np.uint8)
    three = np.repeat(values[..., None], 3, 2)
    for name, pixels, mode in (("rgb", three, None), ("la", np.dstack([values, 0 * values + 255]), "LA")):
        file = tmp_path / f"{name}.png"
        Image.fromarray(pixels, mode).save(file)
        assert MaskReader("abc")(file).tolist() == values.tolist()
    three[0, 0, 0] = 1
    Image.fromarray(three).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([values, values]), "LA").save(tmp_path / "la.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(values.astype(np.int32) * 1000).save(tmp_path / "32.tif")
    Image.fromarray(values > 0).save(tmp_path / "a.pbm")
    for name, says in (
        ("rgb.png", "not colours"),
        ("la.png", "transparent pixels"),
        ("16.png", r"up to 255; if these are classes, save it with 8"),
        ("a.pbm", "is a PPM file in which 0 is white"),
        ("32.tif", r"up to 255000; classes are 0..254, .* instances"),
    ):
        with pytest.raises(DataError, match=says):
            MaskReader("abc")(tmp_path / name)
