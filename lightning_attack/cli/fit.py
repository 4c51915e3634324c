"""The commands `fit`, `validate` and `test`: train a network, and its mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lightning_attack.callbacks.survey_progress import SurveyProgress
from lightning_attack.cli.base import CommandCLI
from lightning_attack.common.atomic import check_folder
from lightning_attack.models.resume import check_checkpoint
from lightning_attack.models.wrapper import SegmentationModel
from lightning_attack.predict.network_doubts import doubts_about_network
from lightning_attack.training import ExamplePredictions, SegmentationTask
from lightning_attack.training.monitors import check_monitors
from lightning_attack.training.new_folder import NewFolder
from lightning_attack.training.trial import check_single


def run(words: list[str]) -> int:
    """Run the command whose name is the first word; returns the exit code."""
    return TrainCLI(words).exit_code


class TrainCLI(CommandCLI):
    """LightningCLI with a `SegmentationTask`."""

    module_class = SegmentationTask

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments of `Trainer`'s methods that are no options."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ExamplePredictions, "example_predictions")

    def __init__(self, words: Sequence[str]) -> None:
        self._folder = NewFolder()
        try:
            super().__init__(words)
        except BaseException:
            self._folder.discard()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(self._folder)  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Find what would fail in the middle of training, before anything is written."""
        self._check(learns=True)

    def before_validate(self) -> None:
        """The same for the photos of `data.val`; those to learn from are not read."""
        self._check(learns=False)

    before_test = before_validate

    def _check(self, learns: bool) -> None:
        self._folder.look(self.trainer)
        if self.checkpoint is not None:
            check_checkpoint(self.checkpoint, self.model, learns)
        check_monitors(self.trainer, self.datamodule.trained_classes)
        if not self.trainer.is_global_zero:
            return
        folder = self.trainer.log_dir or self.trainer.default_root_dir
        if "://" not in folder:
            check_folder(Path(folder))
        if learns:
            self.datamodule.train_dataloader()
        self.datamodule.val_dataloader()  # both say what is missing
        network = self.model.network
        self._warn(network, learns)
        with SurveyProgress(bool(self.trainer.progress_bar_callback)) as progress:
            self.datamodule.check_training(network.num_classes, learns, progress)
        if learns and self.datamodule.batch_size == 1:
            check_single(network, self.datamodule.first_to_learn())

    def _warn(self, network: SegmentationModel, learns: bool) -> None:
        """Say what looks wrong with the network as it was built; random weights are right where it shall learn."""
        trained = learns or self.config[self.config.subcommand].get("ckpt_path") is not None
        for doubt in doubts_about_network(network.name, network):
            if doubt.kind != "random_weights":
                rank_zero_warn(doubt.message)
            elif not trained:
                rank_zero_warn(f"{doubt.message}, or give the .ckpt file of a training: --ckpt_path=FILE")
