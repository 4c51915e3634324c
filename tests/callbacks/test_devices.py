"""A whole run on a pretended device: what it leaves behind is what a run on the host leaves."""

from lightning_attack.attacks import transegpgd_mi_di_ti
from lightning_attack.callbacks import ImageLogger, ImageWriter, RunFolder, TransferMetrics
from lightning_attack.data import SegmentationDataModule
from lightning_attack.models import Defended
from lightning_attack.models.defences import JPEG
from lightning_attack.predict.module import AttackModule
from tests.callbacks.small_runs import SCENES, model
from tests.on_device import quiet_trainer, trainer_on_device


def attack(trainer):
    targets = {"other": model(1, "other"), "behind": Defended(model(0, "same"), [JPEG(60)])}
    module = AttackModule(model(0, "source"), transegpgd_mi_di_ti(steps=3), targets, curve_every=1, engine="eager")
    trainer.predict(module, datamodule=SegmentationDataModule(SCENES, batch_size=2), return_predictions=False)


def test_a_run_on_a_device_leaves_what_one_on_the_host_leaves(tmp_path, monkeypatch):
    found = []
    for where in ("host", "device"):
        metrics = TransferMetrics(table=False)
        callbacks = [RunFolder(str(tmp_path / where)), ImageWriter(), ImageLogger(2, width=24), metrics]
        if where == "host":
            attack(quiet_trainer(accelerator="cpu", callbacks=callbacks))
        else:
            with trainer_on_device(monkeypatch, callbacks=callbacks) as (trainer, _device):
                attack(trainer)
            assert metrics.summary["device"]["type"] == "meta"
        files = {path.name: path.read_bytes() for path in (tmp_path / where).rglob("*.png")}
        found.append((metrics.rows, [metrics.summary[key] for key in ("curves", "step_curve", "targets")], files))
    assert found[0] == found[1]
    assert len(found[0][2]) >= len(SCENES)
