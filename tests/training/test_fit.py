"""`fit` as a user runs it: Lightning's callbacks, resuming, the run's files, what TensorBoard shows."""

import csv
import io

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_attack.data import SyntheticScenes
from lightning_attack.models import ModelError, TrainedModel
from lightning_attack.pictures.panels import class_colours
from lightning_attack.training import ExamplePredictions
from lightning_attack.training.task import SegmentationTask
from tests.training.test_task import data, network, trainer

SMALL = {"class_path": "SMPModel", "init_args": {"arch": "fpn", "encoder_name": "tu-test_resnet",
         "encoder_weights": None, "num_classes": len(SyntheticScenes.classes)}}  # fmt: skip


def part(kind, **init_args):
    return {"class_path": kind, "init_args": init_args}


def scenes(count, seed):
    return part("SyntheticScenes", count=count, size=64, seed=seed)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three epochs of four steps, with the callbacks that the README names, of which one stops after two."""
    folder = tmp_path_factory.mktemp("fit")
    callbacks = [
        part("ModelCheckpoint", monitor="val/miou", mode="max", save_top_k=-1, save_last=True),
        part("EMAWeightAveraging", decay=0.5),
        # Nothing is better by 1, so the second epoch is the last.
        part("EarlyStopping", monitor="val/miou", mode="max", min_delta=1.0, patience=1),
        part("WeightsExport", half=False),
    ]
    loggers = [part(kind, save_dir="logs", name=kind) for kind in ("TensorBoardLogger", "CSVLogger")]
    text = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "log_every_n_steps": 1, "callbacks": callbacks,
                    "logger": loggers},
        "model": {"network": SMALL, "lr": 1e-2, "schedule": "poly"},
        "data": {"train": scenes(8, 1), "val": scenes(3, 2), "batch_size": 2},
    }  # fmt: skip
    (folder / "fit.yaml").write_text(yaml.safe_dump(text))
    return folder / "fit.yaml"


def table(folder):
    (file,) = folder.rglob("metrics.csv")
    return list(csv.DictReader(io.StringIO(file.read_text())))


def pictures(folder):
    (file,) = folder.rglob("events.out.*")
    accumulator = EventAccumulator(str(file), size_guidance={"images": 0})
    accumulator.Reload()
    return {tag: accumulator.Images(tag) for tag in accumulator.Tags()["images"]}


def test_stop_average_export_and_resume(run, config, tmp_path):
    run("fit", "-c", config, cwd=tmp_path)
    epochs = [row for row in table(tmp_path) if row["val/miou"]]
    assert [int(row["epoch"]) for row in epochs] == [0, 1]  # stopped early
    assert sum(bool(row["train/loss"]) for row in table(tmp_path)) == 8
    last = next(tmp_path.rglob("last.ckpt"))
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 8

    # A checkpoint has the averaged weights, and those of the optimizer beside them; exported are the averaged ones of
    # the best epoch.
    name = "network.network.decoder.p5.weight"
    averaged, current = checkpoint["state_dict"][name], checkpoint["current_model_state"][name]
    assert not torch.equal(averaged, current)
    (exported,) = tmp_path.rglob("weights.safetensors")
    best = max(range(2), key=lambda epoch: float(epochs[epoch]["val/miou"]))
    (kept,) = tmp_path.rglob(f"epoch={best}-step=*.ckpt")
    expected = torch.load(kept, weights_only=True)["state_dict"][name]
    assert torch.equal(load_file(exported)[name.removeprefix("network.network.")], expected)
    assert TrainedModel(str(exported)).classes == SyntheticScenes.classes

    # The photos for validation and what was said of them, once in each epoch.
    shown = pictures(tmp_path)
    assert sorted(shown) == [f"examples/{SyntheticScenes(3, size=64, seed=2)[index].name}" for index in range(3)]
    assert [event.step for event in shown["examples/scene_000000"]] == [4, 8]

    # Resumed, it goes on where it was: the third epoch, the ninth step, the rate of the schedule.
    more = tmp_path / "resumed"
    more.mkdir()
    callbacks = yaml.safe_load(config.read_text())["trainer"]["callbacks"][:2]
    (more / "callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    run("fit", "-c", config, "-c", "callbacks.yaml", f"--ckpt_path={last}", cwd=more)
    rows = table(more)
    assert [int(row["epoch"]) for row in rows if row["val/miou"]] == [2]
    assert [int(row["step"]) for row in rows if row["train/loss"]] == [8, 9, 10, 11]
    final = torch.load(next(more.rglob("last.ckpt")), weights_only=True)
    assert final["global_step"] == 12
    assert final["lr_schedulers"][0]["last_epoch"] == 12
    assert final["lr_schedulers"][0]["_last_lr"] == [0.0]


def test_examples_show_photo_truth_and_prediction(tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger

    task, photos = SegmentationTask(network()), data(3)
    callbacks = [ExamplePredictions(count=2)]
    trainer(tmp_path, logger=TensorBoardLogger(tmp_path), callbacks=callbacks).validate(task, photos, verbose=False)
    shown = pictures(tmp_path)
    assert sorted(shown) == ["examples/scene_000000", "examples/scene_000001"]
    for number, (_, (event,)) in enumerate(sorted(shown.items())):
        picture = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        # Below a line of heading, with six pixels between neighbours.
        photo, truth, prediction = (picture[16 : 16 + 32, left : left + 32] for left in (0, 38, 76))
        scene = SyntheticScenes(3, size=32)[number]
        assert np.array_equal(photo, scene.image)
        colours = class_colours().numpy()
        assert np.array_equal(truth, colours[scene.mask])
        with torch.no_grad():
            classes = task(torch.from_numpy(scene.image).permute(2, 0, 1)[None] / 255).argmax(1)[0]
        assert np.array_equal(prediction, colours[classes.numpy()])
        # (Black, white and grey are those of letters, too.)
        legend = {tuple(colour) for colour in picture[16 + 32 + 6 :].reshape(-1, 3)}
        occurs = {tuple(colour) for colour in np.concatenate([truth, prediction]).reshape(-1, 3)}
        named = {tuple(colour) for colour in colours[1:7]}
        assert legend & named == occurs & named != set()


@pytest.mark.parametrize("settings", [{"count": -1}, {"width": 0}])
def test_bad_examples(settings):
    with pytest.raises(ValueError, match=r"must be 0 or more, width=.* 1 or more"):
        ExamplePredictions(**settings)


class Encoded(torch.nn.Module):
    """An encoder and a decoder, named as smp names them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_the_encoder_has_its_own_rate(tmp_path):
    from lightning_attack.models import SegmentationModel

    wrapped = SegmentationModel(Encoded(), num_classes=len(SyntheticScenes.classes))
    wrapped.network.decoder = torch.nn.Conv2d(4, len(SyntheticScenes.classes), 1)
    task = SegmentationTask(wrapped, lr=0.1, encoder_lr_factor=0.25, optimizer="sgd", schedule="one_cycle")
    trainer(tmp_path, max_steps=10, limit_val_batches=0).fit(task, data(20))
    decoder, encoder = task.optimizers().param_groups
    assert [id(one) for one in decoder["params"]] == [id(one) for one in wrapped.network.decoder.parameters()]
    assert [id(one) for one in encoder["params"]] == [id(one) for one in wrapped.network.encoder.parameters()]
    assert decoder["max_lr"] == 0.1
    assert encoder["max_lr"] == 0.025
    assert encoder["lr"] == pytest.approx(0.25 * decoder["lr"])


def test_a_rate_for_an_encoder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="has no part named backbone or encoder; leave out encoder_lr_factor"):
        trainer(tmp_path, max_steps=1).fit(SegmentationTask(network(), encoder_lr_factor=0.1), data(4))
    with pytest.raises(ValueError, match="encoder_lr_factor=0 must be above 0"):
        SegmentationTask(network(), encoder_lr_factor=0)
