"""The attack of a batch as Lightning's predict step, and what belongs to it.

.. include:: README.md
"""

from lightning_attack.predict.module import AttackModule

__all__ = ["AttackModule"]
