"""Engines that run frozen networks faster, forwards and for the gradient of images. They know torch only.

.. include:: README.md
"""

from lightning_attack.engine.cross_entropy import cross_entropy
from lightning_attack.engine.memory import keep_freed_memory, out_of_memory
from lightning_attack.engine.prepare import Kind, Precision, PreparedNetwork, StatusCallback, ignore_status, prepare

__all__ = [
    "Kind",
    "Precision",
    "PreparedNetwork",
    "StatusCallback",
    "cross_entropy",
    "ignore_status",
    "keep_freed_memory",
    "out_of_memory",
    "prepare",
]  # fmt: skip
