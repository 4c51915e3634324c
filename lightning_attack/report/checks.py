"""Checks that the commands `report` and `figure` make before they read runs."""

from __future__ import annotations

from pathlib import Path

from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.names import is_run

FEWEST_DRAWS = 100


def check_draws(draws: int) -> None:
    """Raise `RunsError` if an interval cannot be had from so few draws."""
    if draws < FEWEST_DRAWS:
        raise RunsError(f"--draws={draws}: give {FEWEST_DRAWS} or more; 2000 are enough for 95 % intervals")


def check_outside_runs(output: Path, folder: Path) -> None:
    """Raise `RunsError` if what is to be written would lie in the folder of a run.

    Args:
        output: what `--output` names, for the message.
        folder: where it would lie.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        if is_run(place):
            raise RunsError(f"--output={output} lies in the run '{place}', which stays as it is; choose another folder")
