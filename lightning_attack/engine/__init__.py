"""Engines that run frozen networks faster, forwards and for the gradient of images. They know torch only.

.. include:: README.md
"""

from lightning_attack.engine.cross_entropy import cross_entropy
from lightning_attack.engine.exact import check_exact, exact_on
from lightning_attack.engine.memory import keep_freed_memory, out_of_memory
from lightning_attack.engine.prepare import PreparedNetwork, StatusCallback, ignore_status, prepare
from lightning_attack.engine.price import BACKWARD_PRICE, FORWARD_PRICE, WORTH_COUNTING, Work, count_growth
from lightning_attack.engine.support import EngineError, Kind, Precision, check_precision
from lightning_attack.engine.tf32 import float32_precision, full_float32

__all__ = [
    "BACKWARD_PRICE",
    "FORWARD_PRICE",
    "WORTH_COUNTING",
    "EngineError",
    "Kind",
    "Precision",
    "PreparedNetwork",
    "StatusCallback",
    "Work",
    "check_exact",
    "check_precision",
    "count_growth",
    "cross_entropy",
    "exact_on",
    "float32_precision",
    "full_float32",
    "ignore_status",
    "keep_freed_memory",
    "out_of_memory",
    "prepare",
]  # fmt: skip
