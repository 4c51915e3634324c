"""The command `universal`: learn one perturbation for all photos of a data set."""

from __future__ import annotations

import os
import warnings
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_attack.cli.base import CommandCLI
from lightning_attack.cli.errors import UsageError
from lightning_attack.common.atomic import check_file
from lightning_attack.common.configs import CONFIGS
from lightning_attack.models.resume import read_checkpoint
from lightning_attack.training.universal import UniversalTask


def run(words: list[str]) -> int:
    """Run `universal`, the first word; returns the exit code."""
    return UniversalCLI(words).exit_code


class UniversalTrainer(Trainer):
    """The Trainer, whose `fit` has the command's name here."""

    def universal(self, model: Any, datamodule: Any = None, ckpt_path: str | None = None) -> None:
        """Learn a perturbation.

        Args:
            model: the `UniversalTask`.
            datamodule: the photos.
            ckpt_path: checkpoint to go on from.
        """
        # There is nothing to validate with; whether photos for it are given does not matter.
        warnings.filterwarnings("ignore", message=".*but have no `validation_step`.*")
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)


class UniversalCLI(CommandCLI):
    """LightningCLI with a `UniversalTask`."""

    module_class = UniversalTask
    trainer_kind = UniversalTrainer
    default_files = (str(CONFIGS / "universal.yaml"),)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The command, and the arguments of the Trainer's method that are no options."""
        return {"universal": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--overwrite",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Replace model.file if it exists.",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Without a logger there is no folder of the run in which the settings could be saved."""
        trainer = super().instantiate_trainer(**kwargs)
        if not trainer.loggers:
            kept = [one for one in trainer.callbacks if not isinstance(one, SaveConfigCallback)]  # type: ignore[attr-defined]
            trainer.callbacks = kept  # type: ignore[attr-defined]
        return trainer

    def before_universal(self) -> None:
        """Find what would fail later, before anything is learned."""
        if self.checkpoint is not None:
            self.model.on_load_checkpoint(read_checkpoint(self.checkpoint))
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._check_file()
        if self.datamodule.batch_size == 1 and (mixer := self.model.mixer):
            raise UsageError(f"{mixer} mixes the images of a batch, and there is one\nset --data.batch_size=2 or more")
        self.datamodule.train_dataloader()  # says what is missing

    def _check_file(self) -> None:
        file = self.model.file
        check_file(file)
        goes_on = self._get(self.config, "ckpt_path") is not None
        requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"  # Lightning finds the checkpoint itself
        if file.exists() and not (goes_on or requeued or self._get(self.config, "overwrite")):
            raise UsageError(
                f"'{file}' exists, and would be replaced after the first epoch\ngive another --model.file, or "
                "--overwrite; --ckpt_path=FILE goes on from a checkpoint"
            )

    def after_universal(self) -> None:
        """Say where the perturbation is."""
        if self.trainer.is_global_zero and self.model.file.is_file():
            print(f"Perturbation: {self.model.file}")
