"""Scores of predictions, sizes of perturbations, and the places in an image where pixels flip.

.. include:: README.md
"""

from lightning_attack.common.lazy import lazy_names

_HOMES = {
    "SegmentationScores": "lightning_attack.metrics.segmentation",
    "confusion_matrices": "lightning_attack.metrics.segmentation",
    "perturbation_size": "lightning_attack.metrics.perturbation",
    "flip_counts": "lightning_attack.metrics.flips",
}
__all__ = ["SegmentationScores", "confusion_matrices", "flip_counts", "perturbation_size"]
# Lazily, because `metrics.iou` and `metrics.flips` serve those who read runs and load no torch.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
