"""The folder that a run leaves behind: its files, what stands in them, and how they are read back. Loads no torch.

.. include:: README.md
"""

from lightning_attack.runs.errors import RunError, RunsError
from lightning_attack.runs.folder import Run, read_run
from lightning_attack.runs.records import Record, RecordError

__all__ = ["Record", "RecordError", "Run", "RunError", "RunsError", "read_run"]
