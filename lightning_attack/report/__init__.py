"""Finished runs side by side: tables, intervals and a page. Reads run folders; knows no attack and no network.

.. include:: README.md
"""

from lightning_attack.report import notebook
from lightning_attack.report.collect import collect
from lightning_attack.report.command import report
from lightning_attack.report.intervals import Interval, difference_interval, miou_interval, paired_difference
from lightning_attack.report.notebook import ShownRuns, show
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run, read_run

__all__ = [
    "Interval",
    "Run",
    "RunsError",
    "ShownRuns",
    "collect",
    "difference_interval",
    "miou_interval",
    "notebook",
    "paired_difference",
    "read_run",
    "report",
    "show",
]
