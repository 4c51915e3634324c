"""Attack and score batches in Lightning's `Trainer.predict`.

`AttackModule` is the LightningModule, `Batch` what it takes, `AttackOutput` what it returns.

.. include:: README.md
"""

from lightning_attack.predict.batches import Batch, BatchError
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.module import AttackModule, StatusListener
from lightning_attack.predict.output import AttackOutput
from lightning_attack.predict.recovery import ImageError, OnError
from lightning_attack.predict.step_curve import StepCurve

__all__ = [
    "AttackModule",
    "AttackOutput",
    "Batch",
    "BatchError",
    "CleanPredictions",
    "ImageError",
    "OnError",
    "StatusListener",
    "StepCurve",
]
