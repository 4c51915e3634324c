"""`CellCLI`: one run of a study, and what it shares with the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import Trainer

from lightning_attack.callbacks.study_progress import StudyProgress
from lightning_attack.callbacks.timing import Timed
from lightning_attack.cli.dry_run import time_batch
from lightning_attack.cli.predict import AttackCLI
from lightning_attack.data import SegmentationDataset
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.module import AttackModule


class Shared:
    """What the runs of a study have in common: networks, data sets, what networks say about clean photos."""

    def __init__(self) -> None:
        self.clean = CleanPredictions()
        self._made: dict[object, tuple[object, ...]] = {}

    def make(self, kind: type, *args: Any, **settings: Any) -> object:
        """The object of these settings, made once."""
        settings.pop("applied_instantiation_links", None)
        key = kind, _key(args), _key(settings)
        if key not in self._made:
            # With its settings, so that what they hold keeps its identity.
            self._made[key] = kind(*args, **settings), args, settings
        return self._made[key][0]


def _key(value: Any) -> object:
    """Settings as something to look up; objects among them, which are made once too, by their identity."""
    if isinstance(value, Mapping):
        return tuple((name, _key(one)) for name, one in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    return value if isinstance(value, str | int | float | bool | None) else id(value)


class CellCLI(AttackCLI):
    """`predict` with what its study shares, and without a table and a progress bar of its own.

    Args:
        words: of the command line.
        shared: what the study's runs have in common.
        progress: of the study.
        others: networks that are scored only because the study does not say which ones are.
    """

    optional_may_fail = False
    nobody_named = "networks that do not fit to the source are no targets of it (`targets` names those to score)"

    def __init__(self, words: list[str], shared: Shared, progress: StudyProgress, others: Collection[str] = ()) -> None:
        self._shared, self._progress, self._others = shared, progress, others
        self.timed: Timed | None = None
        quiet = ["--trainer.enable_progress_bar=false", "--transfer_metrics.table=false"]
        super().__init__([*words, *quiet])

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        shared = ((self._shared.make, kind, True) for kind in (SegmentationModel, SegmentationDataset))
        self.parser.instantiators = [*self.parser.instantiators, *shared]

    def make_module(self, kind: type[AttackModule], *args: Any, **settings: Any) -> AttackModule:
        return super().make_module(kind, *args, clean_cache=self._shared.clean, **settings)

    def optional_targets(self) -> set[str]:
        return {*self._others}

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        for name, network in self.model.networks.items():
            network.name = name  # in messages they are called as in tables, which is as in the study

    def show_estimate(self) -> None:
        self.timed = time_batch(self.trainer, self.model, self.datamodule)

    def say_what_is_done(self) -> None:
        """The study says how it goes on."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        remedy = "choose another --name, the folder of all runs, or move this one away to start it over"
        self.run_folder.advice = replace(self.run_folder.advice, remedy=remedy)
        trainer.callbacks.insert(-1, self._progress)  # type: ignore[attr-defined]
        return trainer
