"""Training on a pretended device, with a process group that knows tensors of the device only, as NCCL does."""

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_attack.attacks import RandomFlip, SkipGradients, fgsm
from lightning_attack.models import SegmentationModel
from lightning_attack.training import UniversalTask
from lightning_attack.training.adversarial_training import AdversarialTraining
from lightning_attack.training.task import SegmentationTask
from tests.attacks.toys import CLASSES, curved
from tests.on_device import quiet_trainer, trainer_on_device
from tests.training.test_task import data, network
from tests.training.test_universal import photos


def segmentation(folder):
    task = SegmentationTask(network(auxiliary=True), lr=1e-2, losses={"cross_entropy": 1, "dice": 1}, loss_stride=2)
    return task, data(4)


def universal(folder):
    source = SegmentationModel(curved(torch.float32), num_classes=CLASSES)
    parts = {"input_transforms": [RandomFlip()], "source_transforms": [SkipGradients(required=False)]}
    return UniversalTask(source, str(folder / "learned.pt"), size=(5, 4), **parts), DataLoader(photos(4), 2)


@pytest.mark.filterwarnings("ignore:the source is attacked as it is")
@pytest.mark.parametrize(
    ("make", "callbacks"), [(segmentation, [AdversarialTraining(fgsm())]), (universal, [])], ids=["fit", "universal"]
)
def test_a_fit_on_a_device_is_that_on_the_host(make, callbacks, tmp_path, monkeypatch):
    found = []
    for where in ("host", "device"):
        torch.manual_seed(0)
        task, photos = make(tmp_path)
        settings = {"max_epochs": 2, "default_root_dir": tmp_path, "callbacks": list(callbacks)}
        if where == "host":
            trainer = quiet_trainer(accelerator="cpu", **settings)
            trainer.fit(task, photos)
        else:
            with trainer_on_device(monkeypatch, **settings) as (trainer, device):
                trainer.fit(task, photos)
            assert device.reduced, "nothing was summed over the processes"
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if "share" not in name}
        found.append((figures, {name: weight.detach() for name, weight in task.named_parameters()}))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(weight, found[1][1][name]) for name, weight in found[0][1].items())
