"""`Run`: the folder of a finished run, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attack.records import Record, RecordError, read_record, record_files

TABLE = "transfer.json"


class RunsError(ValueError):
    """Runs that cannot be read or do not go together; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        folder: its folder.
        report: the content of `transfer.json`.
        records: of its images, in the order of the data set.
    """

    folder: Path
    report: dict[str, Any]
    records: tuple[Record, ...]

    @property
    def attack(self) -> str:
        """Name of the attack."""
        return self.report["attack"]

    @property
    def source(self) -> str:
        """Name of the attacked network."""
        return self.report["source"]

    @property
    def targets(self) -> dict[str, bool]:
        """The scored networks in the order of the records' confusion matrices: name -> whether it is white box."""
        return {row["target"]: row["white_box"] for row in self.report["targets"]}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.report["targets"][0]["clean_iou"])

    def confusions(self, target: str) -> np.ndarray:
        """Confusion matrices (images, 2, C, C) int64 of a network: clean, adversarial; rows are labels."""
        place = list(self.targets).index(target)
        return np.stack([record.confusion[place, 0] for record in self.records])


def read_run(folder: Path) -> Run:
    """Read the folder of a run.

    Raises:
        RunsError: there is no table, it is damaged or of another version, or a record is.
    """
    try:
        report = json.loads((folder / TABLE).read_text())
        records = tuple(map(read_record, record_files(folder)))
    except (OSError, ValueError, RecordError) as error:
        raise RunsError(f"'{folder}' is no finished run: {error}") from error
    return Run(folder, report, records)
