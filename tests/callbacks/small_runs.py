"""Small runs in this process, on networks that know drawn scenes a little."""

import json
from copy import deepcopy
from functools import cache

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_attack.callbacks import ImageLogger, ImageWriter, Overview, RunFolder, TransferMetrics
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.module import AttackModule

SCENES = SyntheticScenes(5, size=32)


@cache
def trained(seed):
    """A tiny network that knows the scenes a little, so that there is something to lose."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 8, 1))
    photos = torch.stack([torch.from_numpy(scene.image) for scene in SCENES]).permute(0, 3, 1, 2) / 255
    masks = torch.stack([torch.from_numpy(scene.mask) for scene in SCENES]).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(4 * photos - 2), masks, ignore_index=255).backward()
        optimizer.step()
    return network


def model(seed=0, name="net"):
    return SegmentationModel(deepcopy(trained(seed)), mean=(0.5,) * 3, std=(0.25,) * 3, name=name)


def run(results, attack, targets=None, dataset=SCENES, callbacks=None, logger=False, count=3, bar=False, **arguments):
    """Attack in a real run; returns its folder and the callback that keeps the scores."""
    metrics = TransferMetrics()
    kept = callbacks or [RunFolder(str(results)), ImageWriter(), ImageLogger(count, width=24), metrics, Overview("a b")]
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=kept,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
    )
    module = AttackModule(model(0, "source"), attack, targets, **arguments)
    trainer.predict(module, datamodule=SegmentationDataModule(dataset, batch_size=2), return_predictions=False)
    return metrics


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator
