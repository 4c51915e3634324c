"""What goes wrong in the middle of a run: what is said, what it ends with, what stays on disk."""

import errno
import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import nn

from lightning_attack.attacks import pgd
from lightning_attack.callbacks import ImageLogger, ImageWriter, RunFolder, TransferMetrics
from lightning_attack.data import DataError, SegmentationDataModule, SegmentationDataset, SyntheticScenes
from lightning_attack.engine import out_of_memory
from lightning_attack.models import ModelError, SegmentationModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.recovery import ImageError
from lightning_attack.runs.segments import SegmentWriter
from lightning_attack.runs.store import RecordStore
from tests.runs.kept import packed

SCENES = SyntheticScenes(6, size=32)
BAD = 3


class Net(nn.Module):
    """A network that fails in its own way on photo 3, known by its first pixel, or on batches."""

    def __init__(self, fault=None, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers, self.fault = nn.Conv2d(3, 8, 3, padding=1), fault
        self.mark = torch.from_numpy(SCENES[BAD].image).permute(2, 0, 1)[:, 8:24, 8:24] / 255

    def forward(self, x):
        if "MENDED" in os.environ:  # not an attribute, which would make it another network
            return self.layers(x)
        logits = self.layers(x)
        near = [x.shape[-1] == 32 and bool((one[:, 8:24, 8:24] - self.mark).abs().max() < 0.1) for one in x]
        here = torch.tensor(near)[:, None, None, None]
        if self.fault in ("nan", "memory and nan"):
            logits = torch.where(here, torch.nan, logits)
        if self.fault == "nan gradient":
            rootless = [(one - one.detach()).square().sum().sqrt() if bad else one.sum() * 0  # 0 has no slope
                        for one, bad in zip(x, near, strict=True)]  # fmt: skip
            logits = logits + torch.stack(rootless)[:, None, None, None]
        if self.fault == "raises" and here.any():
            raise RuntimeError("my kernel broke")
        # Not for the probe of one image of 64 x 64.
        most = {"memory": 2, "memory and nan": 2, "no memory": 0}.get(self.fault, len(x))
        if x.shape[-1] == 32 and len(x) > most:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 7 GiB")
        return logits


def network(fault=None, seed=0, name="net"):
    return SegmentationModel(Net(fault, seed), num_classes=8, name=name)


def run(folder, source=None, targets=None, on_error="raise", batch_size=2, dataset=SCENES):
    callbacks = [RunFolder(str(folder), "run"), ImageWriter(), ImageLogger(), TransferMetrics(table=False)]
    module = AttackModule(source or network(name="source"), pgd(steps=2), targets, on_error=on_error)
    data = SegmentationDataModule(dataset, batch_size=batch_size, on_error=on_error)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.predict(module, datamodule=data, return_predictions=False)
    return callbacks[-1]


def records(folder):
    return [*RecordStore(folder / "run").indices]


@pytest.mark.parametrize(
    ("fault", "says"),
    [("nan", "'source' gives NaN or infinite logits"), ("nan gradient", "the gradients of 'source' are NaN")],
)
def test_a_source_that_gives_nan(tmp_path, fault, says):
    with pytest.raises(ImageError, match=f"{says} for 'scene_000003'; --on_error=skip leaves out what fails"):
        run(tmp_path, network(fault, name="source"))
    assert records(tmp_path) == [0, 1]  # the batch before
    done = run(tmp_path, network(fault, name="source"), on_error="skip")
    assert records(tmp_path) == [0, 1, 2, 4, 5]
    assert done.incomplete
    assert done.rows[0]["images"] == 5
    assert "partial" not in done.rows[0]
    assert done.summary["skipped"] == [{"index": 3, "name": "scene_000003", "error": says}]
    # The others are what they would have been.
    whole = run(tmp_path / "whole", network(name="source"))
    assert not whole.incomplete
    for index in (2, 4, 5):
        path = f"run/images/scene_{index:06d}.png"
        assert (tmp_path / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize(
    ("fault", "says"),
    [("nan", "'other' gives NaN or infinite logits"), ("raises", "'other' fails (RuntimeError: my kernel broke)")],
)
def test_a_target_that_fails_while_others_work(tmp_path, monkeypatch, fault, says):
    targets = {"other": network(fault, 1), "third": network(seed=2)}
    with pytest.raises(ModelError) as error:
        run(tmp_path, network(name="source"), targets)
    assert says in str(error.value)
    done = run(tmp_path, network(name="source"), targets, on_error="skip", batch_size=1)
    assert records(tmp_path) == list(range(6))
    assert {row["target"]: row["images"] for row in done.rows} == {"source": 6, "other": 5, "third": 6}
    assert done.summary["failed"] == [{"target": "other", "name": "scene_000003", "error": says}]
    assert done.incomplete
    strip = np.array(Image.open(tmp_path / "run" / "panels" / f"{BAD:08d}.png"))
    white = [bool((panel == 255).all()) for panel in np.split(strip, 10, axis=1)]
    assert white == [False] * 6 + [True] * 2 + [False] * 2, "the target that failed shows no class"
    # Another start tries that photo again: what fails still leaves the same table, and once it is mended, it is whole.
    rest = {index: record for index, record in packed(tmp_path / "run").items() if index != BAD}
    with pytest.warns(UserWarning, match="1 image on which a target could not be scored"):
        again = run(tmp_path, network(name="source"), targets, on_error="skip", batch_size=1)
    assert (again.rows, again.summary["failed"], again.incomplete) == (done.rows, done.summary["failed"], True)
    assert {index: record for index, record in packed(tmp_path / "run").items() if index != BAD} == rest
    # Counted are the photos on which it worked, and all for the others.
    sound = run(tmp_path / "whole", network(name="source"), {"other": network(seed=1), "third": network(seed=2)})
    assert done.rows[2] == sound.rows[2]
    assert done.rows[1] != sound.rows[1]
    monkeypatch.setenv("MENDED", "1")
    mended = run(tmp_path, network(name="source"), targets, batch_size=1)
    assert mended.rows == sound.rows
    assert not mended.incomplete
    assert "failed" not in mended.summary


def test_out_of_memory_halves_batches_until_they_fit(tmp_path):
    with pytest.warns(UserWarning, match="out of memory with") as warned:
        done = run(tmp_path, network("memory", name="source"), batch_size=6)
    assert [str(one.message) for one in warned if "out of memory" in str(one.message)] == [
        "out of memory with 6 images; trying again with 3: data.batch_size=3 avoids it",
        "out of memory with 3 images; trying again with 2: data.batch_size=2 avoids it",
    ]
    assert done.rows == run(tmp_path / "small", network("memory", name="source"), batch_size=2).rows
    assert done.summary["passes_per_image"] == {"forward": 2.0, "backward": 2.0}


def test_out_of_memory_is_met_once(tmp_path):
    source = network("memory", name="source")
    with pytest.warns(UserWarning, match="trying again with 2") as warned:
        run(tmp_path, source, batch_size=3)  # two batches
    assert len([one for one in warned if "out of memory" in str(one.message)]) == 1
    with pytest.raises(torch.OutOfMemoryError):
        run(tmp_path / "large", network("no memory", name="source"), batch_size=1)
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB"), True),
        (MemoryError("Unable to allocate 3.1 GiB for an array"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (ValueError("NaN"), False),
    ],
)
def test_out_of_memory_by_all_its_names(error, memory):
    assert out_of_memory(error) == memory


def test_out_of_memory_and_an_image_that_fails(tmp_path):
    with pytest.warns(UserWarning, match="trying again with 2"):
        done = run(tmp_path, network("memory and nan", name="source"), batch_size=4, on_error="skip")
    assert records(tmp_path) == [0, 1, 2, 4, 5]
    assert [one["index"] for one in done.summary["skipped"]] == [3]


@pytest.mark.parametrize("fails", ["records", "images"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch, fails):
    full = OSError(errno.ENOSPC, "No space left on device")
    save, write = Image.Image.save, SegmentWriter.append

    def saves(image, path, *arguments, **settings):
        if fails == "images" and "scene_000003" in str(path):
            path.write_bytes(b"half of")
            raise full
        return save(image, path, *arguments, **settings)

    def writes(segment, record):
        if fails == "records" and record.index == 3:
            raise full
        write(segment, record)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", saves)
        patch.setattr(SegmentWriter, "append", writes)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, batch_size=1)
    assert records(tmp_path) == [0, 1, 2]
    assert not [path for path in tmp_path.rglob("*unfinished*")]
    assert run(tmp_path, batch_size=1).rows == run(tmp_path / "whole", batch_size=1).rows


def test_images_are_written_while_the_next_batch_is_attacked(tmp_path, monkeypatch):
    """The writer waits for the next batch here; if that waited for the writer, neither would go on."""
    attacked, write = [], ImageWriter._write

    def writes(writer, name, image):
        number, until = int(name.removeprefix("scene_")), time.monotonic() + 20
        while len(attacked) < min(number + 2, len(SCENES)):
            assert time.monotonic() < until
            time.sleep(0.01)
        write(writer, name, image)

    def attacks(module, batch, number, own=AttackModule.predict_step):
        assert len(records(tmp_path)) < max(number, 1)  # not even the last batch is finished
        attacked.append(number)
        return own(module, batch, number)

    monkeypatch.setattr(ImageWriter, "_write", writes)
    monkeypatch.setattr(AttackModule, "predict_step", attacks)
    run(tmp_path, batch_size=1)
    assert records(tmp_path) == attacked == list(range(6))


def predict(folder, module, *others):
    """A run without a `RunFolder`, as of a program of one's own; its report, without times and memory."""
    metrics = TransferMetrics(str(folder), table=False)
    callbacks = [ImageWriter(str(folder)), metrics, *others]
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.predict(module, datamodule=SegmentationDataModule(SCENES, batch_size=2), return_predictions=False)
    changing = ("date", "seconds", "peak_memory_mb_per_image")
    return {key: metrics.summary[key] for key in metrics.summary if key not in changing}


def test_a_run_that_fails_leaves_nothing_to_the_next(tmp_path, monkeypatch):
    module, before = AttackModule(network(name="source"), pgd(steps=2)), threading.active_count()

    def attacks(module, batch, number, own=AttackModule.predict_step):
        if number == 1:
            raise RuntimeError("fails")
        return own(module, batch, number)

    def writes(*_):
        time.sleep(0.1)  # meanwhile the next attack fails
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(AttackModule, "predict_step", attacks)
        patch.setattr(ImageWriter, "_write", writes)
        with pytest.raises(RuntimeError, match="fails"):
            predict(tmp_path / "one", module)
    assert threading.active_count() == before
    assert predict(tmp_path / "two", module)["images"] == 6


def test_all_is_written_before_callbacks_hear_of_the_end(tmp_path, monkeypatch):
    found, write = [], ImageWriter._write
    end = Callback()
    end.on_predict_end = lambda *_: found.extend(tmp_path.rglob("*.png"))
    monkeypatch.setattr(ImageWriter, "_write", lambda *given: (time.sleep(0.1), write(*given)))
    predict(tmp_path, AttackModule(network(name="source"), pgd(steps=2)), end)
    assert len(found) == 6


def test_what_becomes_of_the_outputs_does_not_matter(tmp_path, monkeypatch):
    """A callback that comes later may write to them, while they wait to be written here."""
    write = ImageWriter._write

    def spoil(trainer, module, outputs, *_):
        for value in [*vars(outputs).values()]:
            if isinstance(value, torch.Tensor):
                value.zero_()
            elif isinstance(value, list | dict):
                value.clear()

    late = Callback()
    late.on_predict_batch_end = spoil
    monkeypatch.setattr(ImageWriter, "_write", lambda *given: (time.sleep(0.1), write(*given)))
    reports = [
        predict(tmp_path / str(number), AttackModule(network(name="source"), pgd(steps=2), curve_every=1), *others)
        for number, others in enumerate(([], [late]))
    ]
    assert reports[0] == reports[1]
    assert len(list((tmp_path / "1").rglob("*.png"))) == 6


class Broken(SegmentationDataset):
    """Photos of which one breaks after the run has begun."""

    classes = SCENES.classes

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise DataError("photo 'two.jpg' cannot be read (truncated)")
        return SCENES[index]


def test_a_photo_that_breaks_in_the_middle(tmp_path):
    with pytest.raises(DataError, match=r"two\.jpg"):
        run(tmp_path, dataset=Broken(), batch_size=1)
    assert records(tmp_path) == [0, 1]
    done = run(tmp_path, dataset=Broken(), batch_size=1, on_error="skip")
    assert records(tmp_path) == [0, 1, 3]
    assert done.summary["skipped"] == [
        {"index": 2, "name": "photo 2", "error": "photo 'two.jpg' cannot be read (truncated)"}
    ]


@pytest.fixture
def photos(tmp_path):
    """Three photos, one of them cut off in the middle."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.jpg")
    file = tmp_path / "photos" / "1.jpg"
    file.write_bytes(file.read_bytes()[:900])
    return ("--data.dataset=ImageFolder", f"--data.dataset.root={tmp_path / 'photos'}", "--model.attack.steps=1",
            "--model.targets=null", "--run_name=run")  # fmt: skip


def test_exit_codes_of_the_command_line(predict, photos, tmp_path, capsys):
    assert predict(*photos) == 2
    said = capsys.readouterr().err
    assert "1.jpg' cannot be read" in said
    assert "Traceback" not in said
    assert not (tmp_path / "results").exists()
    assert predict(*photos, "--on_error=skip") == 3
    assert "Left out: photo 1: photo '" in capsys.readouterr().out
    report = json.loads((tmp_path / "results" / "run" / "transfer.json").read_text())
    assert (report["images"], [one["index"] for one in report["skipped"]]) == (2, [1])


def test_results_that_cannot_be_written(predict, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert predict(f"--results={tmp_path / 'file' / 'results'}", "--data.limit=1", "--model.attack.steps=1") == 2
    said = capsys.readouterr().err
    assert "Not a directory" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/../../b", ""])
def test_names_stay_in_the_run_s_folder(tmp_path, name):
    class Named(Broken):
        def __getitem__(self, index):
            return type(SCENES[0])(SCENES[0].image, SCENES[0].mask, name)

    with pytest.raises(DataError, match="cannot be saved under that name in the run's folder"):
        run(tmp_path / "a", dataset=Named())
    assert not list(tmp_path.rglob("*.png"))


def test_a_link_out_of_the_run_s_folder_is_not_followed(tmp_path):
    class Nested(Broken):
        def __getitem__(self, index):
            return type(SCENES[0])(SCENES[index].image, SCENES[index].mask, f"town/{index}")

    with pytest.raises(DataError):  # a run that can go on
        run(tmp_path, dataset=Broken(), batch_size=1)
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "images" / "town").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="lies outside of the run's folder"):
        run(tmp_path, dataset=Nested(), batch_size=1)
    assert not list((tmp_path / "outside").iterdir())
