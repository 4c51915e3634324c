"""Inputs as people have them, with the figures that are right: rebuilt from bug reports of programs of this field.

Where one part of the program is enough to show it, they are in the tests of that part: split lists in
tests/data/test_listing.py, palettes in tests/data/test_reading.py, keys twice and names that are numbers in
tests/cli/test_yaml_files.py, files that are no weights in tests/models/test_weights.py, and networks that cannot be
attacked in tests/predict/test_preflight.py.
"""

import csv
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lightning_attack.data import SyntheticScenes

NAMES = list(SyntheticScenes.classes)
SOURCE = {"class_path": "TrainedModel", "init_args": {"file": "embedded:scenes_deeplabv3plus"}}


def drawn(**settings):
    scenes = SyntheticScenes(count=4, size=128, seed=0, **settings)
    return [scenes[number] for number in range(4)]


@pytest.fixture
def folder(tmp_path):
    """Write scenes as photos and masks, by functions of the user's program; returns the settings of the data set."""

    def folder(scenes, photo=None, mask=None):
        photos, masks = tmp_path / "photos", tmp_path / "masks"
        photos.mkdir()
        masks.mkdir()
        for number, scene in enumerate(scenes):
            if photo is None:
                Image.fromarray(scene.image).save(photos / f"{scene.name}.png")
            else:
                photo(photos, number, scene)
            Image.fromarray(scene.mask if mask is None else mask(scene.mask)).save(masks / f"{scene.name}.png")
        return {"root": str(photos), "masks": str(masks), "classes": NAMES}

    return folder


@pytest.fixture
def scored(predict, tmp_path):
    """Attack by FGSM; returns clean and adversarial mIoU in percent, and the number of images."""

    def scored(settings, source=SOURCE):
        data = {"dataset": {"class_path": "ImageFolder", "init_args": settings}, "batch_size": 2}
        config = {"model": {"source": source, "targets": {}, "attack": "fgsm"}, "data": data}
        assert predict(config, "--run_name=run", "--trainer.accelerator=cpu") == 0
        folder = tmp_path / "results" / "run"
        (row,) = csv.DictReader((folder / "transfer.csv").open())
        images = len(list((folder / "images").rglob("*.png")))
        return 100 * float(row["clean_miou"]), 100 * float(row["adversarial_miou"]), images

    return scored


def test_photos_are_turned_as_their_exif_says(folder, scored):
    def photo(photos, number, scene):
        tag = Image.Exif()
        tag[0x0112] = 3 if number % 2 else 6
        turn = Image.Transpose.ROTATE_180 if number % 2 else Image.Transpose.ROTATE_90
        turned = Image.fromarray(scene.image).transpose(turn)
        turned.save(photos / f"{scene.name}.jpg", quality=97, subsampling=0, exif=tag)

    clean, adversarial, _ = scored(folder(drawn(), photo))
    assert clean == pytest.approx(89, abs=1.5)  # of photos as they lie there: 10
    assert adversarial < clean - 20


def test_masks_in_0_and_255_are_refused_with_the_setting_that_reads_them(folder, predict, scored, capsys):
    settings = folder(drawn(border=0), mask=lambda labels: ((labels > 0) * 255).astype(np.uint8))
    settings["classes"] = ["background", "thing"]
    groups = {"network": SOURCE, "groups": [[0], list(range(1, 8))], "name": "binary"}
    source = {"class_path": "ClassMap", "init_args": groups}
    data = {"dataset": {"class_path": "ImageFolder", "init_args": settings}}
    assert predict({"model": {"source": source, "targets": {}, "attack": "fgsm"}, "data": data}) == 2
    assert "label_map: {0: 0, 255: 1}" in capsys.readouterr().err
    clean, adversarial, _ = scored(settings | {"label_map": {0: 0, 255: 1}}, source)
    assert (clean, adversarial) == (pytest.approx(90.1, abs=0.2), pytest.approx(73.5, abs=1))


def test_what_is_in_linked_folders_is_attacked_and_what_programs_leave_is_not(folder, scored, tmp_path):
    scenes = drawn()
    settings = folder(scenes)
    photos, masks, elsewhere = tmp_path / "photos", tmp_path / "masks", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (masks / "east").mkdir()
    for scene in scenes[:2]:
        (photos / f"{scene.name}.png").rename(elsewhere / f"{scene.name}.png")
        (masks / f"{scene.name}.png").rename(masks / "east" / f"{scene.name}.png")
    (photos / "east").symlink_to(elsewhere)
    Image.fromarray(scenes[0].image).save(photos / "e.jfif", "JPEG", quality=97, subsampling=0)
    Image.fromarray(scenes[0].mask).save(masks / "e.png")
    (photos / ".ipynb_checkpoints").mkdir()
    Image.fromarray(scenes[0].image).save(photos / ".ipynb_checkpoints" / "a-checkpoint.png")
    (photos / "._x.png").write_bytes(b"resource fork")
    clean, _, images = scored(settings)
    assert images == 5
    assert clean == pytest.approx(89, abs=2)


def test_photos_of_12_bits_in_files_of_16_are_no_black_photos(folder, predict, scored, capsys):
    def photo(photos, number, scene):
        values = scene.image.astype(np.uint16) * 16

        def chunk(tag, body):
            return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

        head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (photos / f"{scene.name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)

    settings = folder(drawn(), photo)
    data = {"dataset": {"class_path": "ImageFolder", "init_args": settings}}
    assert predict({"model": {"source": SOURCE, "targets": {}, "attack": "fgsm"}, "data": data}) == 2
    assert "white_level" in capsys.readouterr().err
    clean, _, _ = scored(settings | {"white_level": 4080})
    assert clean == pytest.approx(89, abs=1.5)
