"""The background writer, and what it promises to callbacks in any order."""

import threading
import time
from itertools import permutations

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import GracefulStop, ImageLogger, ImageWriter, TransferMetrics
from lightning_attack.callbacks.background import WAITING, BackgroundWriter
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.predict import AttackModule
from lightning_attack.runs.segments import SegmentWriter
from lightning_attack.runs.store import RecordStore

SCENES = SyntheticScenes(4, size=32)


def test_pieces_are_bounded_and_done_in_order():
    writer, gate, done = BackgroundWriter(), threading.Event(), []
    writer.submit(gate.wait)
    for number in range(WAITING - 1):
        writer.submit(done.append, number)
    waits = threading.Thread(target=writer.submit, args=(done.append, "late"))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()
    assert done == []
    gate.set()
    waits.join()
    writer.finish()
    assert done == [*range(WAITING - 1), "late"]
    assert not any(thread.name.startswith("background-writer") for thread in threading.enumerate())


def test_after_a_failure_nothing_else_is_written_and_the_next_call_raises():
    writer, gate, done = BackgroundWriter(), threading.Event(), []

    def fails():
        gate.wait()
        raise OSError("No space left on device")

    writer.submit(fails)
    writer.submit(done.append, "image")
    writer.submit_last(done.append, "record")
    gate.set()
    while not writer._pieces[0].done():
        time.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        writer.submit(done.append, "next")
    writer.finish()
    assert done == []
    writer.submit(done.append, "after")  # it serves the next run
    writer.finish()
    assert done == ["after"]


def test_when_the_run_fails_what_was_submitted_is_written():
    writer, done = BackgroundWriter(), []
    writer.submit(done.append, "image")
    writer.submit_last(done.append, "record of a batch that has not ended")
    writer.abort()
    assert done == ["image"]
    writer.submit(int, "one")
    writer.abort()  # the run says what went wrong


class Watch(Callback):
    """Notes at every end of a batch, and at the end, what is on disk; may fail or stop at a batch."""

    def __init__(self, folder, fails_at=None):
        self.folder, self.fails_at = folder, fails_at

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        if batch_idx == self.fails_at:
            raise RuntimeError("a callback fails")

    def on_predict_end(self, trainer, pl_module):
        self.at_end = [*self.folder.rglob("*.png"), *RecordStore(self.folder).indices]


def predict(folder, kinds, *others):
    made = {"images": ImageWriter(str(folder)), "records": TransferMetrics(str(folder), table=False),
            "panels": ImageLogger(2, width=16)}  # fmt: skip
    callbacks = [*(made[kind] for kind in kinds), *others]
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)  # fmt: skip
    torch.manual_seed(0)
    module = AttackModule(nn.Conv2d(3, 8, 3, padding=1), NoAttack())
    trainer.predict(module, datamodule=SegmentationDataModule(SCENES, batch_size=1), return_predictions=False)
    return made["records"]


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Fails a test in which a record is written before its PNG; the PNGs take their time."""
    order, write, record = [], ImageWriter._write, SegmentWriter.append

    def writes(writer, name, image):
        time.sleep(0.05)
        write(writer, name, image)
        order.append(f"{name}.png")

    def records(segment, one):
        assert (tmp_path / "images" / f"{one.name}.png").is_file(), "a record without its image"
        record(segment, one)
        order.append(f"{one.name}.record")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ImageWriter, "_write", writes)
    monkeypatch.setattr(SegmentWriter, "append", records)
    return order


@pytest.mark.parametrize("kinds", [*permutations(("images", "records", "panels"))], ids="-".join)
def test_an_image_has_its_record_after_its_png_in_any_order_of_callbacks(kinds, written, tmp_path):
    watch = Watch(tmp_path)
    metrics = predict(tmp_path, kinds, watch)
    assert written == [f"{scene.name}.{kind}" for scene in SCENES for kind in ("png", "record")]
    assert len(watch.at_end) == 4 + 4 + 2
    assert metrics.rows[0]["images"] == 4


@pytest.mark.parametrize("kinds", [*permutations(("images", "records"))], ids="-".join)
def test_a_run_that_fails_keeps_whole_batches(kinds, written, tmp_path):
    """The callback that fails at the second batch stands between those that write: that batch is not whole."""
    names = [scene.name for scene in SCENES]
    callbacks = {"images": ImageWriter(str(tmp_path)), "records": TransferMetrics(str(tmp_path), table=False)}
    first, second = (callbacks[kind] for kind in kinds)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      callbacks=[first, Watch(tmp_path, fails_at=1), second], enable_model_summary=False)  # fmt: skip
    data = SegmentationDataModule(SCENES, batch_size=1)
    with pytest.raises(RuntimeError, match="a callback fails"):
        trainer.predict(AttackModule(nn.Conv2d(3, 8, 1), NoAttack()), datamodule=data, return_predictions=False)
    assert written[:2] == [f"{names[0]}.png", f"{names[0]}.record"]
    assert written[2:] == ([f"{names[1]}.png"] if kinds[0] == "images" else [])


def test_a_run_that_is_stopped_has_records_of_all_that_it_attacked(written, tmp_path):
    """The stop ends the loop in the middle of the callbacks of a batch."""
    stop = GracefulStop()

    class Tell(Callback):
        def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
            stop.signal = 15 if batch_idx == 1 else 0

    metrics = predict(tmp_path, ("records", "images"), Tell(), stop)
    assert written == [f"{scene.name}.{kind}" for scene in list(SCENES)[:2] for kind in ("png", "record")]
    assert metrics.rows[0]["images"] == 2


def test_one_trainer_runs_twice(written, tmp_path):
    metrics = TransferMetrics(str(tmp_path), table=False)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[metrics, ImageWriter(str(tmp_path))],
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    module = AttackModule(nn.Conv2d(3, 8, 1), NoAttack())
    for _ in range(2):
        trainer.predict(module, datamodule=SegmentationDataModule(SCENES, batch_size=2), return_predictions=False)
    assert len(written) == 2 * 2 * 4
    assert len(trainer.callbacks) == 2 + 1
