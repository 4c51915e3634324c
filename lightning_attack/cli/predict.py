"""The command `predict`: attack a network, and score it and others on the adversarial images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lightning_attack import callbacks
from lightning_attack.attacks import check_given
from lightning_attack.attacks.doubts import doubts
from lightning_attack.cli.base import CommandCLI
from lightning_attack.cli.dry_run import in_words, time_batch
from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.named import named
from lightning_attack.common.configs import CONFIGS, attack_names
from lightning_attack.common.imports import imported
from lightning_attack.data import SyntheticScenes
from lightning_attack.models.wrapper import ModelError
from lightning_attack.predict.default_targets import other_classes, unfit
from lightning_attack.predict.doubt import LABELS_PREDICTED, Doubt, refuse
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.commands import one_line
from lightning_attack.runs.settings import Advice
from lightning_attack.runs.store import count_records


def run(words: list[str]) -> int:
    """Run `predict`, the first word; returns the exit code."""
    return AttackCLI(words).exit_code


class AttackCLI(CommandCLI):
    """LightningCLI with an `AttackModule`: attacks, and what happens to their images."""

    module_class = AttackModule
    default_files = (str(CONFIGS / "default.yaml"),)
    nobody_named = "targets of the default configuration that do not fit are left out (--model.targets names your own)"
    """What is said before the names of targets that do not fit and that nobody asked for."""
    optional_may_fail = True
    """Whether a target that nobody asked for is left out too if it cannot be run at all."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The command, and the arguments of `Trainer.predict` that are no options."""
        return {"predict": {"model", "dataloaders", "datamodule", "return_predictions", "ckpt_path", "weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--results", type=str, default="results", help="Folder of all runs.")
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Folder of this run, which can go on.",
        )
        parser.add_argument("--fresh", type=bool, default=False, help="Start over: a folder of that name is renamed.")
        parser.add_argument(
            "--on_error",
            type=Literal["raise", "skip"],
            default="raise",
            help="An image that cannot be used: an error, or left out (exit code 3).",
        )
        parser.add_argument(
            "--curve",
            type=Literal["steps"] | None,
            default=None,
            help="steps: mIoU after every model.curve_every of the attack's steps (else ten).",
        )
        parser.add_argument(
            "--images",
            type=Literal["png", "shards", "none"],
            default="png",
            help="Adversarial images: PNG, few tar files, or none.",
        )
        parser.add_argument(
            "--strict",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Doubtful results are errors.",
        )
        parser.add_argument(
            "--dry_run",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Time a batch, say how long the run takes.",
        )
        for part in ("model", "data"):
            parser.link_arguments("on_error", f"{part}.on_error")
        parser.add_lightning_class_args(callbacks.ImageWriter, "image_writer")
        parser.add_lightning_class_args(callbacks.ImageLogger, "image_logger")
        parser.add_lightning_class_args(callbacks.TransferMetrics, "transfer_metrics")
        parser.link_arguments("strict", "transfer_metrics.strict")

    def __init__(self, words: Sequence[str]) -> None:
        self.named = named(words, ("model.source", "model.targets", "data.dataset"))
        self.left_out: dict[str, str] = {}
        super().__init__(["--dry_run" + word[9:] if word[:9] == "--dry-run" else word for word in words])

    @property
    def dry_run(self) -> bool:
        """Whether a batch is timed, and nothing written."""
        return bool(self._get(self.config, "dry_run"))

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.parser.instantiators = [(self.make_module, AttackModule, True)]
        self._check_name()
        if self._get(self.config, "curve"):
            model = self._get(self.config, "model")
            model.curve_every = model.curve_every or "auto"

    def make_module(self, kind: type[AttackModule], *args: Any, **settings: Any) -> AttackModule:
        """The module, without targets that the user has not named and that do not fit to the source."""
        settings.pop("applied_instantiation_links", None)
        targets = dict(settings.get("targets") or {})
        optional = {name: target for name, target in targets.items() if name in self.optional_targets()}
        known = None if "model.targets" in self.named else SyntheticScenes.classes  # of the package's networks
        self.left_out = other_classes(optional, self._classes_of_data(), known) if optional else {}

        def module() -> AttackModule:
            left = {name: target for name, target in targets.items() if name not in self.left_out}
            return kind(*args, **(settings | {"targets": left}))

        try:
            return module()
        except ModelError:
            size = settings.get("probe_size") or (64, 64)
            self.left_out |= unfit(settings["source"], optional, size, self.optional_may_fail)
            return module()

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        model = self._get(self.config, "model")
        for name, target in (model.targets or {}).items():
            if target == model.source:  # as in the runs of a study, which thereby keep its name for the source
                self.model.source_title = str(name)
                break

    def optional_targets(self) -> set[str]:
        """Names of the targets that may be left out: those of the default configuration beside a source of the user."""
        ours = "model.source" in self.named and "model.targets" not in self.named
        return {*(self._get(self.config, "model").targets or {})} if ours else set()

    def _classes_of_data(self) -> tuple[str, ...] | None:
        """Names of the classes of the photos to attack, as far as the configuration or the class says them."""
        dataset = self._get(self.config, "data").dataset
        if dataset is None:
            return None
        given = (dataset.get("init_args") or {}).get("classes")
        found = given or getattr(imported(dataset.class_path), "classes", None)
        return tuple(found) if isinstance(found, list | tuple) else None

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        if self.left_out:
            self._say_left_out()
        trainer = super().instantiate_trainer(**kwargs)
        results, run_name, fresh = (self._get(self.config, key) for key in ("results", "run_name", "fresh"))
        settings: dict[str, Any] = {"data": self._data_settings()}
        if (images := self._get(self.config, "images")) != "png":
            settings["images"] = images
            trainer.callbacks = [*_other_images(trainer.callbacks, images)]  # type: ignore[attr-defined]
        self.run_folder = callbacks.RunFolder(results, run_name, fresh, settings, self.command)
        self.run_folder.advice = Advice(files=self._files())
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
        if self.trainer.is_global_zero:
            self.run_folder.check(self.trainer, self.model)
            self._check_classes()
            self._check_masks()
            self._warn_of_the_default_source()
            if self._get(self.config, "strict"):
                refuse(self.model.doubts + ([LABELS_PREDICTED] if self.datamodule.classes is None else []))
            for doubt in doubts(self.model.attack, self.model.quantize):
                rank_zero_warn(doubt)
            check_given(self.model.attack, self.datamodule.adversarial_root is not None)
            self.datamodule.set_partners(self.model.partners_seed)
            self.datamodule.check(self.model.num_classes)

    def _say_left_out(self) -> None:
        """Say which targets are missing and why; the saved configuration has those that are there."""
        model = self._get(self.config, "model")
        model.targets = {name: target for name, target in model.targets.items() if name not in self.left_out}
        said = ", ".join(f"'{name}' ({problem})" for name, problem in self.left_out.items())
        rank_zero_warn(f"{self.nobody_named}: {said}")

    def _check_name(self) -> None:
        """An attack must not be called like another one: tables would have its figures under that name."""
        attack = self._get(self.config, "model").attack
        preset, name = attack.class_path.rpartition(".")[2], str((attack.get("init_args") or {}).get("name"))
        # A file may be named after its own settings of a preset, as `transegpgd_misclassified` is.
        if {preset, name} <= {*attack_names()} and preset not in (name, _preset_of(name)):
            raise UsageError(
                f"model.attack.name={name}, but the attack is {preset}: tables would show it as another attack\n"
                f"to run {name}, give --model.attack={name} (in a file `attack: {name}`); or choose another name"
            )

    def _check_classes(self) -> None:
        """The data's classes are the networks'; a source that nobody named is called what it is."""
        try:
            self.model.check_classes(self.datamodule.classes)
        except ModelError as error:
            if {"model.source", "data.dataset"} <= self.named or not self.named:
                raise
            key = "model.source" if "data.dataset" in self.named else "data.dataset"
            raise UsageError(
                f"{error}\nyou gave no {key}, so it is that of the default configuration: give yours (--{key}=...)"
            ) from error

    def _warn_of_the_default_source(self) -> None:
        """Photos of the user that a network for drawn scenes is attacked on: hardly anybody means that."""
        if (
            "data.dataset" in self.named
            and "model.source" not in self.named
            and not isinstance(self.datamodule.dataset, SyntheticScenes)
        ):
            rank_zero_warn(
                "you gave no model.source, so it is that of the default configuration, a network for drawn scenes "
                "(circles, squares, ...), which does not know what photos show; give yours (--model.source=...)"
            )

    def _check_masks(self) -> None:
        """Wanted classes from masks need both the masks and the wish."""
        if (self.model.target_labels == "masks") != (self.datamodule.target_masks is not None):
            raise UsageError(
                f"model.target_labels={self.model.target_labels} and data.target_masks={self.datamodule.target_masks} "
                "do not fit: give data.target_masks=FOLDER together with model.target_labels=masks"
            )

    def predict(self, **kwargs: Any) -> None:
        """Attack; nothing is kept in memory, the callbacks have written it."""
        if self.dry_run:
            self.show_estimate()
            return
        try:
            self.trainer.predict(return_predictions=False, **kwargs)
        except BaseException:
            self.say_what_is_done()
            raise
        if self.stop.signal:
            self.exit_code = 128 + self.stop.signal
            return
        if self._get(self.config, "strict"):
            refuse([Doubt(**doubt) for doubt in self._metrics().summary.get("warnings", ())])
        if any(getattr(callback, "incomplete", False) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            self.exit_code = 3

    def show_estimate(self) -> None:
        """Time a batch, and say how long the run will take."""
        estimate = time_batch(self.trainer, self.model, self.datamodule)
        if self.trainer.is_global_zero:
            folder = Path(self.run_folder.results) / (self._get(self.config, "run_name") or "")
            done = 0 if self._get(self.config, "fresh") else count_records(folder)
            print(in_words(estimate, self.trainer, self.model, len(self.datamodule.indices()), done))

    def say_what_is_done(self) -> None:
        """After an error: how the photos that are done are kept."""
        folder = self.run_folder.folder
        if self.trainer.is_global_zero and folder is not None and (done := count_records(folder)):
            are = "photo is" if done == 1 else "photos are"
            print(f"{done} {are} done in '{folder}'; {self.run_folder.how_to_go_on(self.trainer)}", file=sys.stderr)

    def _metrics(self) -> callbacks.TransferMetrics:
        return next(one for one in self.trainer.callbacks if isinstance(one, callbacks.TransferMetrics))  # type: ignore[attr-defined]

    def _files(self) -> dict[str, str]:
        """Where the networks come from, by name, as far as their settings say it."""
        model = self._get(self.config, "model")
        parts = {self.model.source_name: model.source, **(model.targets or {})}
        found = {name: getattr(part, "init_args", None) or {} for name, part in parts.items()}
        named = {name: next((args.get(key) for key in _FILES if args.get(key)), None) for name, args in found.items()}
        return {name: str(file) for name, file in named.items() if file}

    def _data_settings(self) -> dict[str, Any]:
        """What the data of a run is, for a run that goes on; not how it is read."""
        data = self._get(self.config, "data").as_dict()
        others = ("batch_size", "num_workers", "train", "val", "on_error", "check")
        return {key: value for key, value in data.items() if key not in others}


_FILES = ("file", "path", "weights", "folder_or_repo")
"""Settings of networks that say where the weights come from."""


def _preset_of(name: str) -> str:
    """The preset in the package's file of an attack."""
    return str(yaml.safe_load((CONFIGS / "attacks" / f"{name}.yaml").read_text())["class_path"]).rpartition(".")[2]


def _other_images(found: Iterable[Callback], images: str) -> Iterator[Callback]:
    """The callbacks, with images written to shards, or not at all."""
    for callback in found:
        if not isinstance(callback, callbacks.ImageWriter):
            yield callback
        elif images == "shards":
            yield callbacks.ImageShards(callback.folder, callback.workers)
