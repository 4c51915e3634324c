"""The commands `fit`, `validate` and `test`: train a network, and its mIoU."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from lightning_attack.cli.base import CommandCLI
from lightning_attack.training import ExamplePredictions, SegmentationTask


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

    def before_fit(self) -> None:
        """Find what would fail in the middle of training."""
        self.datamodule.check_training(self.model.network.num_classes)

    def before_validate(self) -> None:
        """The same for the photos of `data.val`; those to learn from are not read."""
        self.datamodule.check_training(self.model.network.num_classes, learns=False)

    before_test = before_validate
