"""Training: losses, schedules, what is logged, and that every photo counts once."""

import math

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from torch import nn

from lightning_attack.attacks import NoAttack, fgsm, pgd
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import ModelError, SegmentationModel, Smoothed
from lightning_attack.training.adversarial_training import AdversarialTraining
from lightning_attack.training.begun import TrainingError
from lightning_attack.training.task import SegmentationTask
from tests.callbacks import small_runs

CLASSES = len(SyntheticScenes.classes)


def network(seed=0, auxiliary=False):
    class Two(nn.Module):
        """A network with an auxiliary head, as torchvision's."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, CLASSES, 3, padding=1), nn.Conv2d(3, CLASSES, 1)

        def forward(self, x):
            return {"out": self.first(x), "aux": self.second(x)[..., ::2, ::2]} if auxiliary else self.first(x)

    torch.manual_seed(seed)
    return SegmentationModel(Two(), num_classes=CLASSES)


def data(count=7, **settings):
    scenes = SyntheticScenes(count, size=32)
    return SegmentationDataModule(train=scenes, val=scenes, batch_size=2, **settings)


def trainer(tmp_path, **settings):
    settings = {"logger": False} | settings
    return Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, default_root_dir=tmp_path,
                   enable_progress_bar=False, enable_model_summary=False, **settings)  # fmt: skip


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]).T.reshape(1, 3, 1, 3)
LABELS = torch.tensor([[[0, 0, 255]]])


def losses(**settings):
    return SegmentationTask(SegmentationModel(nn.Conv2d(3, 3, 1), num_classes=3), **settings).loss(LOGITS, LABELS)


def test_cross_entropy_by_hand():
    first = math.log(math.exp(2) + 1 + math.exp(-1)) - 2
    second = math.log(2 + math.e)
    assert float(losses()) == pytest.approx((first + second) / 2, abs=1e-6)
    # The weight of class 0 cancels, since all counted pixels have it.
    assert float(losses(class_weights=[5, 1, 1])) == pytest.approx((first + second) / 2, abs=1e-6)


def test_dice_by_hand():
    probs = LOGITS.softmax(1)[0, :, 0, :2]
    dice = 1 - 2 * float(probs[0].sum()) / (float(probs[0].sum()) + 2)
    # Only class 0 has labels; smp counts the others as 0 and takes the mean of all.
    assert float(losses(losses={"dice": 1.0})) == pytest.approx(dice / 3, abs=1e-5)


def test_losses_are_added_with_their_weights():
    terms = {name: float(losses(losses={name: 1.0})) for name in ("cross_entropy", "dice", "lovasz", "focal")}
    assert len(set(terms.values())) == 4
    together = float(losses(losses={name: 2.0 for name in terms}))
    assert together == pytest.approx(2 * sum(terms.values()), rel=1e-5)


def test_auxiliary_head_counts_with_its_weight(tmp_path):
    batch = {"image": torch.rand(2, 3, 8, 8), "mask": torch.randint(CLASSES, (2, 8, 8))}
    tasks = [SegmentationTask(network(auxiliary=True), aux_weight=weight) for weight in (0.0, 0.4)]
    for task in tasks:
        task.log = lambda *_, **__: None
    plain, both = (float(task.training_step(batch, 0)) for task in tasks)
    logits, auxiliary = tasks[0].network.outputs(batch["image"])
    assert auxiliary.shape == logits.shape
    assert plain == pytest.approx(float(tasks[0].loss(logits, batch["mask"])))
    assert both == pytest.approx(plain + 0.4 * float(tasks[0].loss(auxiliary, batch["mask"])))


def test_losses_of_every_so_manieth_pixel(tmp_path):
    batch = {"image": torch.rand(2, 3, 7, 8), "mask": torch.randint(CLASSES, (2, 7, 8))}
    task = SegmentationTask(network(), loss_stride=2)
    task.log = lambda *_, **__: None
    seen = {round(task.training_step(batch, 0).item(), 6) for _ in range(100)}
    logits = task.network(batch["image"])
    expected = {round(task.loss(logits[..., row::2, column::2], batch["mask"][:, row::2, column::2]).item(), 6)
                for row in range(2) for column in range(2)}  # fmt: skip
    assert len(expected) == 4
    assert seen == expected


def rates_of(task, trainer, data):
    """The learning rates of all steps of a training."""
    rates, step = [], task.training_step

    def training_step(batch, batch_idx):
        rates.append(task.optimizers().param_groups[0]["lr"])
        return step(batch, batch_idx)

    task.training_step = training_step
    trainer.fit(task, data)
    return rates


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda share: 1.0),
        ("poly", lambda share: (1 - share) ** 0.9),
        ("one_cycle", None),
    ],
)
def test_schedules(optimizer, schedule, expected, tmp_path):
    task = SegmentationTask(network(), lr=0.01, optimizer=optimizer, schedule=schedule, warmup=0.25)
    rates = rates_of(task, trainer(tmp_path, max_epochs=4, limit_val_batches=0), data(6))
    assert len(rates) == 12
    if expected:
        assert rates == pytest.approx([0.01 * expected(number / 12) for number in range(12)], rel=1e-6)
    else:
        assert max(rates) == pytest.approx(0.01)
        assert rates.index(max(rates)) == 2
        assert rates[-1] < 0.001 * rates[2]


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_one_cycle_of_few_steps(steps, tmp_path):
    short = trainer(tmp_path, max_steps=steps, limit_val_batches=0)
    rates = rates_of(SegmentationTask(network(), lr=0.01), short, data(2 * steps))
    assert len(rates) == steps
    assert rates[-1] == pytest.approx(0.01 / 25 / 1e4), "the low end, by torch's default"
    if steps > 2:
        assert max(rates) == rates[1] == pytest.approx(0.01)


def test_validation_logs_each_class(tmp_path):
    task, photos = SegmentationTask(network()), data()
    (figures,) = trainer(tmp_path).validate(task, photos, verbose=False)
    (tested,) = trainer(tmp_path).test(task, photos, verbose=False)
    assert {name.replace("test/", "val/"): value for name, value in tested.items()} == figures
    ious = {name: value for name, value in figures.items() if name.startswith("val/iou/")}
    assert {name.removeprefix("val/iou/") for name in ious} <= set(SyntheticScenes.classes)
    assert figures["val/miou"] == pytest.approx(sum(ious.values()) / len(ious), abs=1e-6)


def test_figures_are_logged_on_the_device_of_the_module(monkeypatch):
    """NCCL reduces tensors of CUDA only, and the metric gives its figures on the CPU."""
    task, logged = SegmentationTask(network()), {}
    monkeypatch.setattr(SegmentationTask, "trainer", None)
    task.scores.update(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    monkeypatch.setattr(SegmentationTask, "device", torch.device("meta"))
    monkeypatch.setattr(task, "log", lambda name, value, **settings: logged.update({name: (value, settings)}))
    task.on_validation_epoch_end()
    assert {"val/miou", "val/accuracy", "val/iou/0"} <= logged.keys()
    assert all(value.device.type == "meta" and settings["sync_dist"] for value, settings in logged.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0}, "lr=0 and encoder_lr_factor=1.0 must be above 0"),
        ({"loss_stride": 0}, "loss_stride=0: must be 1 or more"),
        ({"warmup": 1}, "warmup=1 between 0 and 1"),
        ({"optimizer": "adam"}, "optimizer='adam' must be one of adamw, sgd"),
        ({"schedule": "cosine"}, "'cosine' one of one_cycle, poly, constant"),
        ({"losses": {"iou": 1.0}}, "must be weights above 0 of cross_entropy, dice, lovasz, focal"),
        ({"losses": {"dice": 0.0}}, "must be weights above 0"),
        ({"class_weights": [1.0]}, f"class_weights has 1 numbers, the network {CLASSES} classes"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SegmentationTask(network(), **settings)


def test_a_binary_network_learns_with_the_binary_loss(tmp_path):
    """Its one logit z is trained as [0, z]: the losses, and so the gradients, are those of two classes."""
    torch.manual_seed(0)
    binary = nn.Conv2d(3, 1, 3, padding=1)
    task = SegmentationTask(SegmentationModel(binary, num_classes=1))
    images, labels = torch.rand(2, 3, 8, 8), torch.randint(2, (2, 8, 8))
    loss = task.loss(task(images), labels)
    expected = nn.functional.binary_cross_entropy_with_logits(binary(images)[:, 0], labels.float())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, binary.weight)[0] for one in (loss, expected)))
    task.validation_step({"image": images, "mask": labels}, 0)
    assert task.scores.compute()["iou"].shape == (2,)


def test_the_number_of_classes_must_be_known():
    with pytest.raises(ModelError, match="needs num_classes for training"):
        SegmentationTask(nn.Conv2d(3, 3, 1))


def test_two_processes_count_each_photo_once(run, tmp_path):
    """Seven photos: Lightning's own sampler would count one of them twice."""
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({
        "trainer": {"accelerator": "cpu", "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "LOGS"}}},
        "model": {"network": {"class_path": "TrainedModel", "init_args": {"file": "embedded:scenes_fpn"}}},
        "data": {"val": {"class_path": "SyntheticScenes", "init_args": {"count": 7, "size": 64}}, "batch_size": 2},
    }))  # fmt: skip
    tables = []
    for name, more in (("one", []), ("two", ["--trainer.devices=2", "--trainer.strategy=ddp_fork"])):
        run("test", "-c", config, f"--trainer.logger.init_args.save_dir={tmp_path / name}", *more)
        (table,) = (tmp_path / name).rglob("metrics.csv")
        tables.append(table.read_text())
    assert "test/miou" in tables[0]
    assert tables[0] == tables[1]


def test_a_part_of_each_batch_is_attacked(tmp_path):
    seen = []

    class Spy(SegmentationTask):
        def training_step(self, batch, batch_idx):
            seen.append((batch["image"].clone(), batch["index"].tolist(), self.network.training))
            return super().training_step(batch, batch_idx)

    task, photos = Spy(network(), lr=1e-3), data(6)
    scenes = SyntheticScenes(6, size=32)
    attack = AdversarialTraining(fgsm(eps="8/255"), fraction=0.5)
    trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=[attack]).fit(task, photos)
    assert len(seen) == 3
    for images, indices, training in seen:
        assert training, "the network is back in train mode"
        clean = torch.stack([torch.from_numpy(scenes[index].image).permute(2, 0, 1) / 255 for index in indices])
        change = (images - clean).flatten(1).abs().amax(1)
        assert change[0] == pytest.approx(8 / 255, abs=1e-6)
        assert change[1] == 0


def test_each_epoch_has_its_own_random_starts(tmp_path):
    seen = {}

    class Spy(SegmentationTask):
        def training_step(self, batch, batch_idx):
            for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
                seen.setdefault(index, []).append(image.clone())
            return super().training_step(batch, batch_idx)

    attack = AdversarialTraining(pgd(eps="8/255", steps=1, step_size=1e-9), fraction=1.0)
    callbacks = [attack]
    trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=callbacks).fit(Spy(network(), lr=1e-9), data(2))
    assert len(seen) == 2
    for first, second in seen.values():
        assert float((first - second).abs().max()) > 1 / 255


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5])
def test_bad_fraction(fraction):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        AdversarialTraining(NoAttack(), fraction=fraction)


def test_validate_compares_the_names_of_classes(tmp_path):
    named = network()
    named.classes = (*SyntheticScenes.classes[1:], SyntheticScenes.classes[0])
    with pytest.raises(ModelError, match="in another order"):
        trainer(tmp_path).validate(SegmentationTask(named), data(), verbose=False)


def test_validate_and_predict_count_abstained_pixels_alike(tmp_path):
    smoothed = Smoothed(small_runs.model(1), sigma=0.2, tau=0.7, n0=4, n=40, alpha=0.01, name="smoothed")
    smoothed.num_classes = CLASSES
    small_runs.run(tmp_path, NoAttack(), {"smoothed": smoothed})
    (file,) = tmp_path.rglob("transfer.json")
    (row,) = (row for row in small_runs.strict_json(file)["targets"] if row["target"] == "smoothed")
    assert row["clean_abstained"] > 0.1
    photos = SegmentationDataModule(train=small_runs.SCENES, val=small_runs.SCENES, batch_size=2)
    (figures,) = trainer(tmp_path).validate(SegmentationTask(smoothed), photos, verbose=False)
    assert figures["val/miou"] == pytest.approx(row["clean_miou"], abs=1e-6)
    assert figures["val/accuracy"] == pytest.approx(row["clean_accuracy"], abs=1e-6)


def test_networks_that_abstain_where_they_cannot(tmp_path):
    smoothed = Smoothed(network(), sigma=0.2, name="smoothed")
    with pytest.raises(ModelError, match=r"'smoothed' abstains .*no gradient to learn by\ntrain the network inside it"):
        trainer(tmp_path).fit(SegmentationTask(smoothed), data())
    around = SegmentationModel(smoothed, CLASSES, name="around")
    with pytest.raises(ModelError, match="'around' has one inside that abstains"):
        trainer(tmp_path).validate(SegmentationTask(around), data(), verbose=False)


def begun(folder, epochs=2, more=None, ckpt=None, **settings):
    """A training of so many epochs of two steps; returns its task and its checkpoint."""
    task = SegmentationTask(network(), **settings)
    own = Trainer(accelerator="cpu", max_epochs=epochs, limit_val_batches=0, logger=False, default_root_dir=folder,
                  enable_progress_bar=False, enable_model_summary=False, **more or {})  # fmt: skip
    own.fit(task, data(4), ckpt_path=ckpt)
    return task, own.checkpoint_callback.best_model_path


@pytest.mark.parametrize("schedule", ["one_cycle", "poly"])
def test_a_learning_rate_that_ends_before_the_training(schedule, tmp_path):
    _, checkpoint = begun(tmp_path, schedule=schedule)
    says = r"learning rate ends after 4 steps, so training cannot go on to step 6\ngo on with the trainer\.max_epochs"
    with pytest.raises(TrainingError, match=says):
        begun(tmp_path, epochs=3, schedule=schedule, ckpt=checkpoint)


def test_a_constant_rate_goes_on_to_any_step(tmp_path):
    _, checkpoint = begun(tmp_path, schedule="constant", lr=0.01)
    task, _ = begun(tmp_path, epochs=3, schedule="constant", lr=0.01, ckpt=checkpoint)
    assert task.trainer.global_step == 6
    assert task.optimizers().param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [("lr", 0.001, 0.002), ("weight_decay", 0.01, 0.0), ("schedule", "one_cycle", "constant"), ("warmup", 0.1, 0.2),
     ("optimizer", "adamw", "sgd")],
)  # fmt: skip
def test_settings_that_the_checkpoint_would_beat(name, before, now, tmp_path):
    _, checkpoint = begun(tmp_path)
    with pytest.raises(
        TrainingError, match=rf"give its settings again, .*\n  {name}: {before} in the checkpoint, {now} n"
    ):
        begun(tmp_path, epochs=2, ckpt=checkpoint, **{name: now})
    own = trainer(tmp_path, limit_val_batches=1)
    assert own.validate(SegmentationTask(network(), **{name: now}), data(), ckpt_path=checkpoint, verbose=False)


@pytest.mark.parametrize("limits", [{"max_time": {"hours": 1}}, {"max_epochs": -1}])
def test_a_schedule_must_know_the_end(limits, tmp_path):
    def fit(schedule):
        own = trainer(tmp_path, limit_val_batches=0, callbacks=[StopAt(3)], **limits)
        own.fit(SegmentationTask(network(), schedule=schedule), data(4))
        return own.global_step

    for schedule in ("one_cycle", "poly"):
        with pytest.raises(TrainingError, match=rf"schedule={schedule} needs to know .*\ngive --trainer.max_epochs=50"):
            fit(schedule)
    assert fit("constant") == 3


class StopAt(Callback):
    """Stops after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.steps
