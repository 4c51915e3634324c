"""`table_width`: how wide tables may be that are printed."""

from __future__ import annotations

import os
import sys

WIDE = 1000
"""Columns in a log: more than any table takes."""


def table_width() -> int | None:
    """Columns for tables on the standard output; None: as many as the terminal has, or as COLUMNS says.

    A file has no width. Consoles of rich take it for 80 columns, and fold names and figures of the log of a job.
    """
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
