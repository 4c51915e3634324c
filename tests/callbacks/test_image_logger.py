"""Strips of panels, in the run's folder and in TensorBoard."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.callbacks import ImageLogger, ImageWriter, RunFolder, TransferMetrics, image_logger
from lightning_attack.common.labels import ABSTAINED, IGNORE_INDEX, class_colour
from lightning_attack.models import Smoothed
from lightning_attack.pictures.captions import captioned, classes_in
from lightning_attack.pictures.panels import class_colours
from lightning_attack.report import read_run
from lightning_attack.report.figures.strip import pictures
from tests.callbacks.small_runs import SCENES, events, model, run


def strips(folder):
    accumulator = events(folder)
    for tag in accumulator.Tags()["images"]:
        (event,) = accumulator.Images(tag)
        yield tag, event


def test_tensorboard_images(finished):
    """The strips in rows of four, under headings of two lines, over the colours of the classes that occur."""
    folder, _, _ = finished
    logged = dict(strips(folder))
    assert set(logged) == {f"images/scene_{index:06d}" for index in range(3)}
    for index in range(3):
        event = logged[f"images/scene_{index:06d}"]
        picture = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        strip = np.array(Image.open(folder / "panels" / f"{index:08d}.png"))
        panels = np.split(strip, 8, axis=1)
        assert panels[0].shape == (24, 24, 3)  # shrunk from 32
        for number, panel in enumerate(panels):
            top, left = 32 + number // 2 * (32 + 24 + 6), number % 2 * (24 + 6)
            assert np.array_equal(picture[top : top + 24, left : left + 24], panel)
            assert (picture[top - 16 : top, left : left + 24] < 128).any()  # a heading
        legend = {tuple(colour) for colour in picture[4 * (32 + 24 + 6) :].reshape(-1, 3)}
        occurs = {tuple(colour) for panel in panels[3:] for colour in panel.reshape(-1, 3)}
        colours = {tuple(colour) for colour in class_colours()[1:7].tolist()}  # (greys are those of letters, too)
        assert legend & colours == occurs & colours


def test_few_strips_are_kept_in_memory(tmp_path, monkeypatch):
    read, own = [], image_logger.read_strip
    monkeypatch.setattr(image_logger, "AT_HAND", 2)
    monkeypatch.setattr(image_logger, "read_strip", lambda file: (read.append(file.name), own(file))[1])
    metrics = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=1), callbacks=[RunFolder(str(tmp_path), "mine"), ImageLogger(4), metrics])
    assert sorted(read) == ["00000002.png", "00000003.png"]
    assert {tag for tag, _ in strips(tmp_path / "mine")} == {f"images/scene_{index:06d}" for index in range(4)}


def test_panels_show_what_they_say(tmp_path):
    callbacks = [RunFolder(str(tmp_path)), ImageWriter(), ImageLogger(count=1, magnify=5)]
    run(tmp_path, pgd(steps=2), callbacks=callbacks)
    folder = tmp_path / "pgd_source" / "version_0"
    strip = np.array(Image.open(folder / "panels" / f"{0:08d}.png")).astype(int)
    clean, adversarial, difference, truth, before, after = np.split(strip, 6, axis=1)
    scene = SCENES[0]
    saved = np.array(Image.open(folder / "images" / f"{scene.name}.png")).astype(int)
    assert np.array_equal(clean, scene.image)
    assert np.array_equal(adversarial, saved)
    assert np.abs(difference - np.clip(127.5 + 5 * (saved - scene.image), 0, 255)).max() <= 1
    # One colour for one class, in all three maps.
    seen = {}
    for picture, classes in ((truth, scene.mask), (before, said(scene.image)), (after, said(saved))):
        for c in np.unique(classes):
            colours = {tuple(colour) for colour in picture[classes == c]}
            assert len(colours) == 1
            assert seen.setdefault(int(c), colours) == colours
    assert seen[255] == {(255, 255, 255)}
    assert len(set.union(*seen.values())) == len(seen)


def test_pixels_for_which_a_target_abstains_have_a_colour_of_their_own(tmp_path):
    """They count as wrong; ignored ones, which are white in the labels, do not count."""
    smoothed = Smoothed(model(1), sigma=0.2, tau=0.7, n0=4, n=40, alpha=0.01, name="smoothed")
    callbacks = [RunFolder(str(tmp_path)), ImageLogger(len(SCENES)), TransferMetrics(table=False)]
    run(tmp_path, NoAttack(), {"smoothed": smoothed}, callbacks=callbacks)
    folder = tmp_path / "no_attack_source" / "version_0"
    row = next(row for row in read_run(folder).summary["targets"] if row["target"] == "smoothed")
    files = sorted((folder / "panels").iterdir())
    panels = [np.split(np.array(Image.open(file)), 8, axis=1) for file in files]
    truth, clean = (np.concatenate([panel[place] for panel in panels]) for place in (3, 6))
    labelled = (truth != class_colour(IGNORE_INDEX)).any(-1)
    abstained = (clean == class_colour(ABSTAINED)).all(-1)
    assert abstained[labelled].mean() == pytest.approx(row["clean_abstained"]) != 0
    assert not (clean == class_colour(IGNORE_INDEX)).all(-1).any()
    names = [[name for _, name in legend] for legend in (classes_in(clean, "abcdefg"),
             pictures([read_run(folder)], None, ["smoothed"]).legend)]  # fmt: skip
    assert all("abstained" in found and "ignored" not in found for found in names)
    picture = captioned(clean, ["clean"], 1, [(ABSTAINED, "abstained")])[-16:]
    assert (picture == class_colour(ABSTAINED)).all(-1).any()
    colours = class_colours().tolist()
    assert colours.count([*class_colour(ABSTAINED)]) == 1, "no class has it"


def test_strips_of_earlier_parts(tmp_path, monkeypatch):
    """They are headed with their own factor; damaged ones are left out, and the run has its figures."""
    titles, own = [], image_logger.captioned

    def listening(strip, headings, *more):
        titles.append(headings[2])
        return own(strip, headings, *more)

    monkeypatch.setattr(image_logger, "captioned", listening)
    folder = tmp_path / "mine"
    for magnify in (5, 10):
        metrics = TransferMetrics(table=False)
        run(tmp_path, pgd(steps=1), callbacks=[RunFolder(str(tmp_path), "mine"), ImageLogger(4, magnify), metrics])
    assert titles == ["difference x 5"] * 8
    (folder / "panels" / "00000000.png").write_bytes(b"no picture")
    Image.new("RGB", (7, 5)).save(folder / "panels" / "00000001.png")
    again = [RunFolder(str(tmp_path), "mine"), ImageLogger(4), TransferMetrics(table=False)]
    with pytest.warns(UserWarning, match=r"'.*panels.0000000[01].png' is damaged, so TensorBoard does not") as warned:
        run(tmp_path, pgd(steps=1), callbacks=again)
    assert sum("is damaged" in str(warning.message) for warning in warned) == 2
    assert {tag for tag, _ in strips(folder)} == {"images/scene_000002", "images/scene_000003"}
    assert again[-1].rows == metrics.rows


def said(photo):
    image = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model(0)(image)[0].argmax(0).numpy()


def test_no_images_logged(tmp_path):
    run(tmp_path, NoAttack(), count=0)
    assert events(tmp_path / "no_attack_source" / "version_0").Tags()["images"] == []
