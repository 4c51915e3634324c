"""Finished runs side by side: tables, intervals and a page. Reads run folders; knows no attack and no network."""

from lightning_attack.comparison.runs import Run, RunsError, read_run

__all__ = ["Run", "RunsError", "read_run"]
