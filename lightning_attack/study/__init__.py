"""A study: the runs of `predict` that follow from one file. Knows networks and attacks only by name.

.. include:: README.md
"""

from lightning_attack.study.plan import Cell, Study, StudyError, cells, share

__all__ = ["Cell", "Study", "StudyError", "cells", "share"]
