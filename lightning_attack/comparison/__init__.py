"""Finished runs side by side: tables, intervals and a page. Reads run folders; knows no attack and no network."""

from lightning_attack.comparison.collect import collect
from lightning_attack.comparison.command import report
from lightning_attack.comparison.runs import Run, RunsError, read_run
from lightning_attack.comparison.statistics import Interval, difference_interval, miou_interval, paired_difference

__all__ = [
    "Interval",
    "Run",
    "RunsError",
    "collect",
    "difference_interval",
    "miou_interval",
    "paired_difference",
    "read_run",
    "report",
]
