"""The folder of a run, and the strips of panels in it."""

import fcntl
import io
import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import (
    ImageLogger,
    ImageWriter,
    Overview,
    RunFolder,
    TransferMetrics,
    image_logger,
)
from lightning_attack.callbacks.run_folder import RunError
from lightning_attack.data import Scene, SegmentationDataModule, SegmentationDataset
from lightning_attack.pictures.panels import class_colours
from lightning_attack.predict.module import AttackModule
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
            top, left = 32 + number // 4 * (32 + 24 + 6), number % 4 * (24 + 6)
            assert np.array_equal(picture[top : top + 24, left : left + 24], panel)
            assert (picture[top - 16 : top, left : left + 24] < 128).any()  # a heading
        legend = {tuple(colour) for colour in picture[2 * (32 + 24 + 6) :].reshape(-1, 3)}
        occurs = {tuple(colour) for panel in panels[3:] for colour in panel.reshape(-1, 3)}
        colours = {tuple(colour) for colour in class_colours()[1:7].tolist()}  # (greys are those of letters, too)
        assert legend & colours == occurs & colours


def test_few_strips_are_kept_in_memory(tmp_path, monkeypatch):
    read, own = [], image_logger._read
    monkeypatch.setattr(image_logger, "AT_HAND", 2)
    monkeypatch.setattr(image_logger, "_read", lambda file: (read.append(file.name), own(file))[1])
    metrics = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=1), callbacks=[RunFolder(str(tmp_path), "mine"), ImageLogger(4), metrics])
    assert sorted(read) == ["00000002.png", "00000003.png"]
    assert {tag for tag, _ in strips(tmp_path / "mine")} == {f"images/scene_{index:06d}" for index in range(4)}


def test_a_run_that_goes_on_draws_its_curves_once(tmp_path):
    def callbacks():
        metrics = TransferMetrics(table=False)
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), ImageLogger(2), metrics, Overview()]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    (tmp_path / "mine" / "records" / f"{3:08d}.record").unlink()
    for _ in range(2):  # with something left to do, and with nothing
        run(tmp_path, pgd(steps=2), callbacks=callbacks())
        (file,) = (tmp_path / "mine").glob("events.out.tfevents.*")
        told = [value.tag for event in LegacyEventFileLoader(str(file)).Load() for value in event.summary.value]
        counts = {tag: told.count(tag) for tag in told}
        assert counts.pop("steps/loss") == 2
        assert counts.pop("over_images/white_box/source") == 5
        assert (
            counts["images/scene_000000"]
            == counts["adversarial/miou/source"]
            == counts["result/miou/text_summary"]
            == 1
        )


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


def said(photo):
    image = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model(0)(image)[0].argmax(0).numpy()


def test_each_run_has_a_folder_of_its_own(tmp_path):
    for number in range(2):
        run(tmp_path, NoAttack())
        assert (tmp_path / "no_attack_source" / f"version_{number}" / "transfer.csv").is_file()


def test_a_finished_run_of_the_same_name_is_not_attacked_again(tmp_path):
    first, second = TransferMetrics(), TransferMetrics()
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), first])
    content = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}

    class Never(NoAttack):
        def perturb(self, problem):
            raise AssertionError("nothing is left to attack")

    Never.__name__ = "NoAttack"  # what settings say of it
    run(tmp_path, Never(), callbacks=[RunFolder(str(tmp_path), "mine"), second])
    assert second.rows == first.rows
    assert second.report["seconds"]["run"] > first.report["seconds"]["run"] > first.report["seconds"]["attack"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()} == content


def test_another_run_of_the_same_name_is_refused(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    content = (tmp_path / "mine" / "transfer.json").read_text()
    for change, says in (
        ({"seed": 1}, r"model\.seed: 0 before, 1 now"),
        ({"targets": {"other": model(1)}}, r"model\.targets\.other: not there before, [0-9a-f]{16} now"),
    ):
        with pytest.raises(RunError, match=rf"mine' is a run of other settings; .*--fresh=true(?s:.*){says}"):
            run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()], **change)
    assert (tmp_path / "mine" / "transfer.json").read_text() == content
    (tmp_path / "mine" / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"is no run that could go on \(no readable settings.json\)"):
        run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])


def test_fresh_starts_over_and_keeps_the_old_folder(tmp_path):
    for number in range(3):
        folder = RunFolder(str(tmp_path), "mine", fresh=True)
        run(tmp_path, NoAttack(), callbacks=[folder, TransferMetrics()], seed=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.old_0", "mine.old_1"]
    seeds = [json.loads((tmp_path / name / "settings.json").read_text())["model"]["seed"]
             for name in ("mine.old_0", "mine.old_1", "mine")]  # fmt: skip
    assert seeds == [0, 1, 2]


class Fails(Attack):
    """Fails at one of its batches."""

    def __init__(self, error=RuntimeError, at=2):
        super().__init__("fails")
        self._calls, self._error, self._at = 0, error, at

    def perturb(self, problem):
        self._calls += 1
        if self._calls == self._at:
            raise self._error("broken")
        return problem.images


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_before_its_first_record_leaves_nothing(tmp_path, error):
    results = tmp_path / "results"
    with pytest.raises((error, SystemExit)):
        run(results, Fails(error, 1), callbacks=[RunFolder(str(results)), ImageWriter(), TransferMetrics()])
    assert not results.exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_later_keeps_what_was_finished_and_goes_on(tmp_path, error):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), ImageLogger(5), TransferMetrics()]

    with pytest.raises((error, SystemExit)):
        run(tmp_path, Fails(error, 2), callbacks=callbacks())
    records = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}
    assert len(records) == 2
    second = callbacks()
    run(tmp_path, Fails(error, 0), callbacks=second)
    assert second[-1].rows[0]["images"] == 5
    assert "partial" not in second[-1].rows[0]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}
    assert len(kept) == 5
    assert {name: kept[name] for name in records} == records, "no image is attacked twice"
    shown = {tag for file in (tmp_path / "mine").glob("events.*") for tag in events(file).Tags()["images"]}
    assert shown == {f"images/scene_{index:06d}" for index in range(5)}


def test_a_failing_run_leaves_other_runs_alone(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "first"), TransferMetrics()])
    with pytest.raises(RuntimeError, match="broken"):
        run(tmp_path, Fails(at=1), callbacks=[RunFolder(str(tmp_path)), ImageWriter(), TransferMetrics()])
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert (tmp_path / "first" / "transfer.csv").is_file()


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "another file", "no picture"])
def test_a_damaged_record_is_reported_and_its_image_attacked_again(tmp_path, damage):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    first, second = callbacks(), callbacks()
    run(tmp_path, pgd(steps=2), callbacks=first)
    record = tmp_path / "mine" / "records" / "00000003.record"
    whole, picture = record.read_bytes(), tmp_path / "mine" / "images" / "scene_000003.png"
    if damage == "no picture":
        picture.unlink()
    else:
        flipped = bytes([*whole[:-40], whole[-40] ^ 1, *whole[-39:]])
        other = b"\x89PNG" + bytes(60)
        record.write_bytes({"torn": whole[:-7], "flipped": flipped, "empty": b"", "another file": other}[damage])
    says = "is gone" if damage == "no picture" else "is damaged or was not written to its end"
    with pytest.warns(UserWarning, match=rf"{says}; its image is attacked again"):
        run(tmp_path, pgd(steps=2), callbacks=second)
    assert second[-1].rows == first[-1].rows
    assert picture.is_file()


class Other(SegmentationDataset):
    """The scenes in another order, or with other masks."""

    classes = SCENES.classes

    def __init__(self, change):
        self.change = change

    def __len__(self):
        return 5

    def __getitem__(self, index):
        scene = SCENES[index]
        if self.change == "masks" and index == 2:
            return Scene(scene.image, np.roll(scene.mask, 1), scene.name)
        return SCENES[[1, 0, 2, 3, 4][index]] if self.change == "order" else scene


@pytest.mark.parametrize(("change", "again"), [("masks", {2}), ("order", {0, 1}), ("nothing", set())])
def test_photos_that_have_changed_are_attacked_again(tmp_path, change, again):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "mine" / "records").iterdir()}
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second, dataset=Other(change))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "mine" / "records").iterdir()}
    assert {int(name[:8]) for name in after if after[name] != before[name]} == again
    new = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=2), dataset=Other(change), callbacks=[RunFolder(str(tmp_path), "new"), ImageWriter(), new])
    if change != "order":  # a photo's place in the data set is its seed
        assert second[-1].rows == new.rows


def test_what_a_killed_process_was_writing_is_no_record(tmp_path):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    record = tmp_path / "mine" / "records" / "00000003.record"
    unfinished = record.rename(record.with_name(".99.unfinished.00000003.record"))
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second)
    assert record.is_file()
    assert not unfinished.exists()
    assert second[-1].rows[0]["images"] == 5


def test_one_data_module_serves_several_runs(tmp_path):
    data = SegmentationDataModule(SCENES, batch_size=2)
    for number in range(2):
        metrics = TransferMetrics(str(tmp_path / "plain"), table=False)
        named = [RunFolder(str(tmp_path), "mine"), TransferMetrics(table=False)]
        for callbacks in (named, [metrics]):
            quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
            trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, **quiet)
            trainer.predict(AttackModule(model(), NoAttack()), datamodule=data, return_predictions=False)
        assert metrics.rows[0]["images"] == 5, number
        assert "partial" not in metrics.rows[0]


def test_a_folder_in_use_is_refused(tmp_path):
    """The holder is another process: locks belong to files that are open, so one process would do too."""
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    lock = (tmp_path / "mine" / ".lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write("pid 12 on nowhere")
    lock.flush()
    with pytest.raises(RunError, match=r"mine' is in use by another run \(pid 12 on nowhere\); wait for it or stop it"):
        run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    lock.close()
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])


def test_no_images_logged(tmp_path):
    run(tmp_path, NoAttack(), count=0)
    assert events(tmp_path / "no_attack_source" / "version_0").Tags()["images"] == []
