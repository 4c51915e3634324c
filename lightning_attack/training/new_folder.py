"""`NewFolder`: a run that fails before it has done anything leaves no folder behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class NewFolder(Callback):
    """Take the folder that a run has made away again, if it fails before its second step and has saved no checkpoint.

    It must be the first callback: others write into the folder when they are set up.
    """

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # talks to the other processes: all of them must ask
        self._made = []
        if folder is not None and trainer.is_global_zero:
            places = [Path(folder).absolute(), *Path(folder).absolute().parents]
            self._made = [place for place in places if not place.exists()]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step  # of a run that goes on, not 0

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        learned = trainer.training and trainer.global_step > self._step + 1
        if not self._made or learned or any(self._made[0].rglob("*.ckpt")):
            return
        for logger in trainer.loggers:
            logger.finalize("failed")  # before its file is deleted
        shutil.rmtree(self._made[0], ignore_errors=True)
        for place in self._made[1:]:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
