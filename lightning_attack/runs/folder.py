"""`Run`: a finished run, read from its folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attack.common.counted import counted
from lightning_attack.runs.counts import counts_of
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.names import SETTINGS, SUMMARY
from lightning_attack.runs.records import Facts, RecordError
from lightning_attack.runs.store import RecordStore

__all__ = ["Run", "RunsError", "common_images", "photo_digest", "read_run"]
_KEYS = ("attack", "source", "images", "targets", "perturbation", "passes_per_image", "settings")
_TARGET_KEYS = ("target", "white_box", "clean_miou", "adversarial_miou", "clean_iou", "adversarial_iou")
_SETTINGS_KEYS = ("attack", "quantize", "seed")


@dataclass(frozen=True)
class Run:
    """A finished run. Its counts lie on the disk until they are asked for.

    Attributes:
        folder: its folder.
        summary: the content of `transfer.json`.
        records: facts about each of its images, in the order of the data set.
        settings: the content of `settings.json`; empty for a run that has none, as from Python without a `RunFolder`.
    """

    folder: Path
    summary: dict[str, Any]
    records: tuple[Facts, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def attack(self) -> str:
        """Name of the attack."""
        return str(self.summary["attack"])

    @property
    def display_name(self) -> str:
        """What the attack is called in papers; its name where the run does not say."""
        return str(self.summary.get("display_name") or self.attack)

    @property
    def citations(self) -> dict[str, str]:
        """BibTeX entries by their keys of the papers that the attack comes from; none where the run does not say."""
        found = self.summary.get("citations")
        return {str(key): str(entry) for key, entry in found.items()} if isinstance(found, dict) else {}

    @property
    def source(self) -> str:
        """Name of the attacked network."""
        return str(self.summary["source"])

    @property
    def targets(self) -> dict[str, bool]:
        """The scored networks in the order of the records' counts: name -> whether it is white box."""
        return {row["target"]: row["white_box"] for row in self.summary["targets"]}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.summary["targets"][0]["clean_iou"])

    @property
    def partial(self) -> bool:
        """Whether images are missing because the run was stopped."""
        return bool(self.summary.get("partial"))

    @cached_property
    def images(self) -> dict[str, int]:
        """Digest of each photo -> position of its record in `records`.

        The second of two equal photos has `#2` after its digest; where a run kept no digests, names stand for them.
        """
        seen: Counter[str] = Counter()
        places = {}
        for place, record in enumerate(self.records):
            key = photo_digest(record) or f"{record.index} {record.name}"
            seen[key] += 1
            places[key if seen[key] == 1 else f"{key}#{seen[key]}"] = place
        return places

    @cached_property
    def has_digests(self) -> bool:
        """Whether the run kept the digests of all its photos; their names alone may be those of other photos."""
        return all(photo_digest(record) for record in self.records)

    @cached_property
    def failures(self) -> dict[str, frozenset[str]]:
        """The images, as in `images`, on which a network could not be scored, by the name of the network."""
        failed: dict[str, set[str]] = {}
        for key, place in self.images.items():
            for target in self.records[place].failed:
                failed.setdefault(target, set()).add(key)
        return {target: frozenset(keys) for target, keys in failed.items()}

    def scored(self, target: str) -> frozenset[str]:
        """The images, as in `images`, on which a network could be scored."""
        return frozenset(self.images) - self.failures.get(target, frozenset())

    def counts(self, target: str, images: Iterable[str] | None = None) -> np.ndarray:
        """Hits, labels and predictions of each class (`metrics.iou.class_counts`), (images, 2, 3, C) integers.

        Args:
            target: name of the network; its counts are for clean and adversarial images.
            images: which ones, as in `images`, and in which order; None = all, in the order of the data set.

        Raises:
            RunsError: a record is damaged or has counts of other networks or classes.
        """
        number, places = list(self.targets).index(target), self._places(images)
        if not places:
            return np.zeros((0, 2, 3, len(self.classes)), np.uint32)
        return counts_of(self.folder, self.records)[0][places, number]

    def curve(self, target: str, images: Iterable[str] | None = None) -> np.ndarray:
        """The same along the curve of the run, (images, points, 3, C).

        Raises:
            RunsError: as `counts`; and a record has no curve.
        """
        number = list(self.targets).index(target)
        curves = counts_of(self.folder, self.records)[1]
        if curves is None:
            raise RunsError(f"the records of '{self.folder}' have no curve, but its summary has one; run it again")
        return curves[self._places(images), number]

    def _places(self, images: Iterable[str] | None) -> list[int]:
        return list(range(len(self.records)) if images is None else (self.images[key] for key in images))


def read_run(folder: Path) -> Run:
    """Read the folder of a run: its summary, and which images it has; the counts are read when they are needed.

    Raises:
        RunsError: the summary or a record is missing, damaged or of another version, or they contradict each other.
    """
    summary = _json(folder / SUMMARY)
    _check(summary, folder / SUMMARY)
    settings = _json(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    if not isinstance(settings, dict) or not isinstance(settings.get("model", {}), dict):
        raise RunsError(f"'{folder / SETTINGS}' is damaged: it holds no settings\n{_AGAIN}")
    records = []
    try:
        store = RecordStore(folder)
        problems: list[object] = [*store.damaged]
        for _, facts in store.facts():
            if isinstance(facts, RecordError):
                problems.append(facts)
            else:
                records.append(facts)
    except OSError as error:
        problems = [error]
    if problems:
        raise RunsError(f"{problems[0]}\nthe run's own command repairs it, or leave out '{folder}'")
    if len(records) != summary["images"]:
        raise RunsError(
            f"'{folder}' has {len(records)} records, but its {SUMMARY} is about {counted(summary['images'], 'image')}: "
            "the run is under way, or records were removed\nlet the run's own command finish it, or leave it out"
        )
    run = Run(folder, summary, tuple(records), settings)
    networks, classes = len(run.targets), len(run.classes)
    for record in records:
        if (record.shape[0], record.shape[-1]) != (networks, classes):
            raise RunsError(
                f"the records of '{folder}' have {record.shape[0]} networks and {record.shape[-1]} classes, its "
                f"{SUMMARY} {networks} and {classes}\n{_AGAIN}"
            )
    return run


_AGAIN = "run it again with --fresh=true, or leave it out"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise RunsError(f"'{path.parent}' is no finished run: {error}") from error
    except ValueError as error:
        raise RunsError(f"'{path}' is damaged ({error})\n{_AGAIN}") from error


def _check(summary: Any, path: Path) -> None:
    """Raise `RunsError` if a summary lacks something."""
    if not isinstance(summary, dict):
        raise RunsError(f"'{path}' is damaged: it holds no table\n{_AGAIN}")
    missing = [key for key in _KEYS if key not in summary]
    if not missing:
        rows, settings = summary["targets"], summary["settings"]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise RunsError(f"'{path}' is damaged: its targets are no rows\n{_AGAIN}")
        if not isinstance(settings, dict) or not isinstance(settings.get("attack", {}), dict):
            raise RunsError(f"'{path}' is damaged: its settings name no attack\n{_AGAIN}")
        missing = [f"targets.{key}" for key in _TARGET_KEYS if any(key not in row for row in rows)]
        missing += [f"settings.{key}" for key in _SETTINGS_KEYS if key not in settings]
    if missing:
        raise RunsError(f"'{path}' has no {', '.join(missing)}: it was written by an older version\n{_AGAIN}")


def photo_digest(record: Facts) -> str:
    """The digest of a record's photo, without that of an adversarial image made elsewhere (after a `+`)."""
    return record.digest.partition("+")[0]


def common_images(runs: Sequence[Run], images: Iterable[str]) -> tuple[str, ...]:
    """Those of the images that all runs have, in the order of the first run's data set."""
    wanted = set(images).intersection(*(run.images for run in runs))
    return tuple(key for key in runs[0].images if key in wanted)
