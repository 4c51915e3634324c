"""Frozen networks made fast: knows torch, and no attack and no network of the project.

.. include:: README.md
"""

from lightning_attack.engine.cross_entropy import cross_entropy
from lightning_attack.engine.memory import keep_freed_memory, out_of_memory
from lightning_attack.engine.prepare import Kind, Precision, PreparedNetwork, Say, prepare, silent

__all__ = [
    "Kind", "Precision", "PreparedNetwork", "Say", "cross_entropy", "keep_freed_memory", "out_of_memory", "prepare",
    "silent",
]  # fmt: skip
