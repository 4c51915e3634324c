"""`show`: runs as a notebook shows them.

.. include:: README.md
"""

from lightning_attack.report.notebook.shown import ShownRuns, show

__all__ = ["ShownRuns", "show"]
