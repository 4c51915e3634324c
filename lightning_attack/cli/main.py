"""The command line: the only place that knows all parts.

python main.py predict ...     attack a network and score the others (with nothing more: the embedded default)
python main.py fit ...         train a network
python main.py validate ...    its mIoU; test ... likewise
python main.py export ...      a checkpoint as one file for predict
python main.py study ...       many runs of predict
python main.py report ...      tables of finished runs
"""

from __future__ import annotations

import json
import logging
import pickle
import sys
import warnings
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

# Imported so that configurations may use the bare class names.
from lightning_attack import __version__, attacks, callbacks, data, models
from lightning_attack import report as comparison
from lightning_attack.cli.errors import explain
from lightning_attack.cli.help import COMMANDS, HelpFormatter, words_of_commands
from lightning_attack.cli.parts import CONFIGS, PARTS
from lightning_attack.engine import keep_freed_memory
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.commands import one_line
from lightning_attack.training import AdversarialTraining, ExamplePredictions, WeightsExport
from lightning_attack.training.task import SegmentationTask

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other where the strategy is `ddp`; torch's own patience is half an hour."""

__all__ = [
    "CONFIGS", "PARTS", "AdversarialTraining", "AttackCLI", "WeightsExport", "attacks", "callbacks",
    "data", "main", "models",
]  # fmt: skip


class UsageError(Exception):
    """Something in the configuration cannot work; the message is for the person who wrote it."""


class Parser(LightningArgumentParser):
    """Answers a mistake with what is wrong and what is known, in two lines, and exit code 2; `--help` in few words."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **({"formatter_class": HelpFormatter} | options))

    def add_class_arguments(self, *args: Any, skip: Collection[str] | None = None, **options: Any) -> Any:
        """All but what only programs set."""
        return super().add_class_arguments(*args, skip={*(skip or ()), "clean_cache"}, **options)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        parsers = [self, *(self._subcommands_action.choices.values() if self._subcommands_action else ())]
        options = {name for parser in parsers for name in parser._option_string_actions if name.startswith("--")}
        raise UsageError(explain(message, [name.removeprefix("--") for name in options], PARTS))


class AttackCLI(LightningCLI):
    """LightningCLI with an `AttackModule` for predict and a `SegmentationTask` for fit and validate."""

    exit_code = 0

    def __init__(self, args: ArgsType = None) -> None:
        words = sys.argv[1:] if args is None else args
        self.command = ["python", "main.py", *words] if isinstance(words, list) else []
        commands = words_of_commands()
        commands["predict"]["default_config_files"] = [str(CONFIGS / "default.yaml")]
        super().__init__(
            AttackModule,
            data.SegmentationDataModule,
            parser_class=Parser,
            parser_kwargs={"version": __version__, "description": (__doc__ or "").partition("\n\n")[2], **commands},
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # Attacks are not loaded from checkpoints: their settings would silently beat the command line's.
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments of `Trainer`'s methods that are not asked for."""
        return {
            "predict": {"model", "dataloaders", "datamodule", "return_predictions", "ckpt_path", "weights_only"},
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        assert parser._subcommands_action
        for action in parser._subcommands_action._choices_actions:
            action.help = COMMANDS[action.dest]

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # LightningCLI has one model class for all commands; it is read here, once for each command.
        self._model_class = AttackModule if subcommand == "predict" else SegmentationTask
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self._model_class is AttackModule:
            parser.add_argument("--results", type=str, default="results", help="Folder of all runs.")
            parser.add_argument(
                "--run_name",
                type=str | None,
                default=None,
                help="Name of this run's folder; an interrupted run goes on.",
            )
            parser.add_argument(
                "--fresh", type=bool, default=False, help="Start over: a folder of that name is renamed."
            )
            parser.add_argument(
                "--on_error",
                type=Literal["raise", "skip"],
                default="raise",
                help="What becomes of an image that cannot be used: an error, or it is left out (exit code 3).",
            )
            parser.add_argument(
                "--curve",
                type=Literal["steps"] | None,
                default=None,
                help="steps: transfer mIoU over the attack's steps, after every model.curve_every (else ten points).",
            )
            for part in ("model", "data"):
                parser.link_arguments("on_error", f"{part}.on_error")
            parser.add_lightning_class_args(callbacks.ImageWriter, "image_writer")
            parser.add_lightning_class_args(callbacks.ImageLogger, "image_logger")
            parser.add_lightning_class_args(callbacks.TransferMetrics, "transfer_metrics")
        else:
            parser.add_lightning_class_args(ExamplePredictions, "example_predictions")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read options and files."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UsageError(f"a configuration file is no text in UTF-8 ({error})") from error

    def before_instantiate_classes(self) -> None:
        """Without a progress bar there is none of ours either."""
        trainer = self._get(self.config, "trainer")
        if trainer.enable_progress_bar is False:
            kept = [one for one in trainer.callbacks or [] if not one.class_path.endswith(".AttackProgress")]
            trainer.callbacks = kept
        if self.subcommand == "predict" and self._get(self.config, "curve"):
            model = self._get(self.config, "model")
            model.curve_every = model.curve_every or "auto"

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, OSError, MisconfigurationException) as error:
            # A class behind an optional argument is tried as one of several types; its own words are inside.
            raise UsageError(explain(str(error), (), PARTS)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        if self.subcommand == "predict":
            # Attacks differ in cost, and at the end the fast processes wait for the slow ones.
            StrategyRegistry.register("ddp", DDPStrategy, override=True, start_method="popen", timeout=PATIENCE)
        trainer = super().instantiate_trainer(**kwargs)
        if self.subcommand == "predict":
            results, run_name, fresh = (self._get(self.config, key) for key in ("results", "run_name", "fresh"))
            settings = {"data": self._data_settings()}
            self.run_folder = callbacks.RunFolder(results, run_name, fresh, settings, self.command)
            self.stop = callbacks.GracefulStop()
            overview = callbacks.Overview(one_line(self.command))
            trainer.callbacks = [self.run_folder, *trainer.callbacks, overview, self.stop]  # type: ignore[attr-defined]
        return trainer

    def before_predict(self) -> None:
        """Find what would fail before anything is written; one process is enough to say it."""
        if self.trainer.fast_dev_run or self.trainer.limit_predict_batches == 0:  # type: ignore[attr-defined]
            raise UsageError(
                "trainer.fast_dev_run and limit_predict_batches=0 make no results; use data.limit for less"
            )
        keep_freed_memory()  # this process is the run's; attacks ask for the same memory in every step
        if self.trainer.is_global_zero:
            self.run_folder.check(self.trainer, self.model)
            self.model.check_classes(self.datamodule.classes)
            self._check_masks()
            attacks.check_given(self.model.attack, self.datamodule.adversarial_root is not None)
            self.datamodule.set_partners(self.model.partners_seed)
            self.datamodule.check(self.model.num_classes)

    def _check_masks(self) -> None:
        """Wanted classes from masks need both the masks and the wish."""
        if (self.model.target_labels == "masks") != (self.datamodule.target_masks is not None):
            raise UsageError(
                f"model.target_labels={self.model.target_labels} and data.target_masks={self.datamodule.target_masks} "
                "do not fit: give data.target_masks=FOLDER together with model.target_labels=masks"
            )

    def before_fit(self) -> None:
        """Find what would fail in the middle of training."""
        self.datamodule.check_training(self.model.network.num_classes)

    before_validate = before_test = before_fit

    def predict(self, **kwargs: Any) -> None:
        """Attack; nothing is kept in memory, the callbacks have written it."""
        self.trainer.predict(return_predictions=False, **kwargs)
        if self.stop.signal:
            self.exit_code = 128 + self.stop.signal
        elif any(getattr(callback, "incomplete", False) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            self.exit_code = 3

    def _data_settings(self) -> dict[str, Any]:
        """What the data of a run is, for a run that goes on; not how it is read."""
        data = self._get(self.config, "data").as_dict()
        others = ("batch_size", "num_workers", "train", "val", "on_error")
        return {key: value for key, value in data.items() if key not in others}


def export(words: Sequence[str]) -> None:
    """`export --ckpt FILE --to FILE`: see `models.export_checkpoint`."""
    parser = Parser(
        prog="main.py export",
        description="Write the network of a checkpoint to one file for predict.",
        allow_abbrev=False,
    )
    parser.add_function_arguments(models.export_checkpoint)
    about = models.export_checkpoint(**parser.parse_args(list(words)).as_dict())
    print(json.dumps(about, indent=2))


def report(words: Sequence[str]) -> None:
    """`report RUN... --output DIR`: see `comparison.report`."""
    parser = Parser(prog="main.py report", description="Put finished runs side by side.", allow_abbrev=False)
    parser.add_argument("runs", type=str, nargs="+", help="Folders of runs, or folders above them.")
    flags = {
        "common": "Compare runs of different images on those that all have.",
        "partial": "Report runs that were stopped too.",
        "mean": "Make one row of runs that differ in nothing but their seed: mean and standard deviation.",
    }
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_function_arguments(comparison.report, skip={"runs", *flags})
    comparison.report(**parser.parse_args(list(words)).as_dict())


def main(args: ArgsType = None) -> int:
    """Run the command line; returns the exit code.

    0 = done, 2 = a mistake in what was asked for, 3 = done but for what `on_error: skip` left out, 128 + n = stopped by
    signal n.
    """
    _quiet()
    words = sys.argv[1:] if args is None else args
    try:
        if isinstance(words, list) and words[:1] == ["export"]:
            export(words[1:])
        elif isinstance(words, list) and words[:1] == ["report"]:
            report(words[1:])
        elif isinstance(words, list) and words[:1] == ["study"]:
            from lightning_attack.cli.study import study  # it runs this command line

            return study(words[1:])
        else:
            return AttackCLI(args).exit_code
    except (UsageError, attacks.AttackError, comparison.RunsError, data.DataError, models.ModelError, OSError) as error:
        if not getattr(rank_zero_only, "rank", 0):  # each process knows it; one says it
            print(f"error: {error}", file=sys.stderr)
        return 2
    except pickle.UnpicklingError:
        print("error: ckpt_path is no Lightning checkpoint, or holds more than tensors and settings", file=sys.stderr)
        return 2
    return 0


def _quiet() -> None:
    """Drop what says nothing to the user of this program."""
    for library in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{library}.utilities.rank_zero").setLevel(logging.WARNING)
        logging.getLogger(f"lightning.{library}.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A run that goes on may have nothing left to attack.
    warnings.filterwarnings("ignore", message=".*Total length of `DataLoader` across ranks is zero.*")
    # The runs of a study have words of their own beside those of the study.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # Lightning 2.6 on torch 2.14.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
