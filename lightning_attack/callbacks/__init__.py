"""What happens around attacks: score, save, show. Callbacks know what `AttackModule` returns, and no attack.

.. include:: README.md
"""

from lightning_attack.callbacks.graceful_stop import GracefulStop
from lightning_attack.callbacks.image_logger import ImageLogger
from lightning_attack.callbacks.image_writer import ImageWriter
from lightning_attack.callbacks.overview import Overview
from lightning_attack.callbacks.progress import AttackProgress
from lightning_attack.callbacks.run_folder import RunFolder
from lightning_attack.callbacks.shard_writer import ImageShards
from lightning_attack.callbacks.transfer_metrics import TransferMetrics
from lightning_attack.common.moved import moved_name

__all__ = [
    "AttackProgress",
    "GracefulStop",
    "ImageLogger",
    "ImageShards",
    "ImageWriter",
    "Overview",
    "RunFolder",
    "TransferMetrics",
]


def __getattr__(name: str) -> object:
    return moved_name(__name__, name)
