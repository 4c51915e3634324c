"""What `AttackCLI` (predict) and `TrainCLI` (fit, validate, test) have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

# Imported so that configurations may use the bare names of their classes.
from lightning_attack import __version__, attacks, callbacks, models, training  # noqa: F401
from lightning_attack.cli import processes
from lightning_attack.cli.errors import UsageError, explain
from lightning_attack.cli.help import descriptions
from lightning_attack.cli.named import file_with
from lightning_attack.cli.parser import Parser, with_paths
from lightning_attack.cli.parts import PARTS
from lightning_attack.cli.program import program_words
from lightning_attack.cli.translate import DEVICES, known_error
from lightning_attack.common.errors import UserError
from lightning_attack.common.user_code import error_of_user_code
from lightning_attack.data import SegmentationDataModule
from lightning_attack.engine import keep_freed_memory
from lightning_attack.models.resume import read_checkpoint
from lightning_attack.predict.device import why_no_gpu


class CommandCLI(LightningCLI):
    """LightningCLI of one LightningModule, for some of the Trainer's methods.

    Attributes:
        module_class: the LightningModule.
        trainer_kind: the Trainer.
        default_files: configuration files that are read before those of the user.
        command: the words of the command line, to be typed again.
        exit_code: of the process, once the command is done.
    """

    module_class: ClassVar[type]
    trainer_kind: ClassVar[type[Trainer]] = Trainer
    default_files: ClassVar[Sequence[str]] = ()
    parser: Parser
    exit_code = 0

    def __init__(self, words: Sequence[str]) -> None:
        self.command = [*program_words(), *words]
        if not {"-h", "--help"} & set(words):
            # Here, for it takes a second: networks of smp go by their bare names too.
            import segmentation_models_pytorch  # noqa: F401
        about = descriptions(self.subcommands())
        files = {"default_config_files": list(self.default_files)} if self.default_files else {}
        super().__init__(
            self.module_class,
            SegmentationDataModule,
            trainer_class=self.trainer_kind,
            parser_class=Parser,
            parser_kwargs={"version": __version__, **{command: text | files for command, text in about.items()}},
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # Attacks are not loaded from checkpoints: their settings would silently beat the command line's.
            load_from_checkpoint_support=False,
            args=with_paths(words),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read options and files."""
        try:
            super().parse_arguments(parser, args)
        except UsageError as error:
            raise UsageError(_in_file(str(error), self.command)) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"a configuration file is no text in UTF-8 ({error})") from error
        except SyntaxError as error:  # of a module of the user, which the parser imports
            raise UsageError(f"{error.filename}:{error.lineno} is not valid Python: {error.msg}") from error
        if self.checkpoint is not None:
            read_checkpoint(self.checkpoint)  # LightningCLI looks into it next, and says nothing of use

    @property
    def checkpoint(self) -> Path | None:
        """The file that `ckpt_path` names; None if nothing is given, or an address or a word of Lightning's."""
        given = self.config[self.config.subcommand].get("ckpt_path")
        if given == "best":
            raise UsageError("ckpt_path=best is for programs that have just trained; give the .ckpt file")
        return None if given is None or given in ("last", "hpc") or "://" in str(given) else Path(given)

    def before_instantiate_classes(self) -> None:
        """Without a progress bar there is none of ours either."""
        trainer = self._get(self.config, "trainer")
        if trainer.enable_progress_bar is False:
            kept = [one for one in trainer.callbacks or [] if not one.class_path.endswith(".AttackProgress")]
            trainer.callbacks = kept

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        processes.register()
        keep_freed_memory()  # this process is the run's, and every step asks for the same memory
        devices = self._get(self.config, "trainer").devices
        if isinstance(devices, str) and re.match(r"(cuda|gpu|cpu|mps|tpu)\b", devices):
            raise UsageError(f"trainer.devices is a number, or a list of numbers of GPUs; given: {devices}\n{DEVICES}")
        trainer = super().instantiate_trainer(**kwargs)
        chosen = self._get(self.config, "trainer").accelerator
        if chosen == "auto" and trainer.strategy.root_device.type == "cpu" and (reason := why_no_gpu()):
            rank_zero_warn(f"the NVIDIA GPU of this machine is not used, the CPU computes: {reason}")
        return trainer

    def after_instantiate_classes(self) -> None:
        """Meet the other processes before the first one reads all photos, which may take long."""
        processes.join(self.trainer)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except Exception as error:
            if found := error_of_user_code(error):
                place, cause = found
                raise UsageError(f"{place} raised {type(cause).__name__}: {cause}") from error
            if not isinstance(error, ValueError | TypeError | OSError | MisconfigurationException):
                raise
            # A class behind an optional argument is tried as one of several types; its own words are inside.
            raise UsageError(known_error(error) or explain(str(error), (), PARTS)) from error


def _in_file(message: str, words: Sequence[str]) -> str:
    """The message about an option that does not exist, with the file that it stands in."""
    match = re.match(r"there is no option '([\w.]+)'(?=\n|$)", message)
    file = match and file_with(match[1], words)
    return f"{match[0]} (in '{file}'){message[match.end() :]}" if match and file else message
