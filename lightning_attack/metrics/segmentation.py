"""Segmentation scores from one confusion matrix, as a torchmetric."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_attack.common.labels import ABSTAINED, IGNORE_INDEX
from lightning_attack.metrics.iou import accuracy, class_counts, iou, miou, miou_union


class SegmentationScores(Metric):
    """mIoU, pixel accuracy and IoU of each class, from one confusion matrix over the whole data set.

        IoU_c    = TP_c / (TP_c + FP_c + FN_c)              over all pixels of all images whose label is not ignored
        miou     = mean of IoU_c over the classes that occur in the labels
        miou_union = mean of IoU_c over the classes that occur in labels or predictions
                     (equals torchmetrics' `MulticlassJaccardIndex(average="macro")`)
        accuracy = sum_c TP_c / number of labelled pixels

    `miou` averages over a set of classes that an attack cannot change, so clean and adversarial figures compare. In
    `miou_union` one stray pixel of an absent class adds a class with IoU 0.

    Counts are int64 and the divisions float64: exact, and independent of batches, order and number of processes.
    Pixels for which a network abstains are labelled pixels without a prediction: wrong, and no false positives.

    Args:
        num_classes: classes of labels and predictions are 0..num_classes-1.
        ignore_index: label of pixels that do not count.
        abstains: whether predictions may be `ABSTAINED` (-1).

    Raises:
        ValueError: shapes differ, or a prediction or label is out of range.

    Example:
        >>> scores = SegmentationScores(num_classes=3)
        >>> scores.update(preds=torch.tensor([[0, 0, 0, 2]]), target=torch.tensor([[0, 0, 1, 255]]))
        >>> scores.update(preds=torch.tensor([[2]]), target=torch.tensor([[0]]))
        >>> result = scores.compute()     # IoU 2/4 of class 0, 0/1 of class 1, 0/1 of class 2, which no label holds
        >>> result["miou"].item(), round(result["miou_union"].item(), 4), result["accuracy"].item()
        (0.25, 0.1667, 0.5)
        >>> result["iou"].tolist()
        [0.5, 0.0, nan]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int = IGNORE_INDEX, abstains: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index, self.abstains = num_classes, ignore_index, abstains
        counts = torch.zeros(num_classes, num_classes + abstains, dtype=torch.int64)
        self.add_state("confusion", default=counts, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count predicted classes `preds` against labels `target`, both (B, H, W) or any one shape, integers."""
        if preds.shape != target.shape:
            raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must have one shape")
        (confusion,) = confusion_matrices(
            preds.reshape(1, -1), target.reshape(1, -1), self.num_classes, self.ignore_index, self.abstains
        )
        self.confusion += confusion

    @classmethod
    def of(cls, confusion: Tensor) -> SegmentationScores:
        """The metric that has counted `confusion`, (C, C) or (C, C + 1) int64, in this process."""
        metric = cls(len(confusion), abstains=confusion.shape[1] > len(confusion), sync_on_compute=False)
        metric.merge_state({"confusion": confusion})
        metric._update_count += 1  # else compute() warns that nothing was counted
        return metric

    def compute(self) -> dict[str, Tensor]:
        """`miou`, `miou_union`, `accuracy` and `iou` (C,), NaN for classes without a label; float64, on the CPU."""
        counts = class_counts(self.confusion.cpu().numpy())
        figures = {
            "miou": miou(counts),
            "miou_union": miou_union(counts),
            "accuracy": accuracy(counts),
            "iou": np.where(counts[1] > 0, iou(counts), np.nan),
        }
        return {name: torch.as_tensor(values) for name, values in figures.items()}


def confusion_matrices(
    preds: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX, abstains: bool = False
) -> Tensor:
    """The confusion matrix of each image, (B, C, C) int64: rows are labels, columns predictions.

    With `abstains` it is (B, C, C + 1), and the last column counts pixels whose prediction is `ABSTAINED`.

    Args:
        preds: predicted classes, (B, ...), integers.
        target: labels of the same shape.
        num_classes: C; classes are 0..C-1.
        ignore_index: label of pixels that do not count.
        abstains: whether predictions may be `ABSTAINED`.

    Raises:
        ValueError: shapes differ, or a prediction or label is out of range.

    Example:
        >>> preds, labels = torch.tensor([[0, 0, 1], [1, 1, 0]]), torch.tensor([[0, 1, 1], [0, 255, 255]])
        >>> confusion_matrices(preds, labels, num_classes=2).tolist()
        [[[1, 0], [1, 1]], [[0, 1], [0, 0]]]
    """
    if preds.shape != target.shape:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must have one shape")
    preds, target = preds.flatten(1).long(), target.flatten(1).long()
    ignored = target == ignore_index
    foreign = ((target < 0) | (target >= num_classes)) & ~ignored | (preds >= num_classes)
    foreign |= (preds < 0) & ~((preds == ABSTAINED) & abstains)
    if foreign.any():
        raise ValueError(
            f"labels are {int(target.min())}..{int(target.max())}, predictions {int(preds.min())}.."
            f"{int(preds.max())}; allowed are 0..{num_classes - 1} (and {ignore_index} for labels)"
        )
    columns = num_classes + abstains
    if abstains:
        preds = torch.where(preds == ABSTAINED, num_classes, preds)
    # One extra row for each image takes the ignored pixels: cheaper than selecting the others.
    images = torch.arange(len(preds), device=preds.device)[:, None]
    cells = (images * (num_classes + 1) + torch.where(ignored, num_classes, target)) * columns + preds
    counts = torch.bincount(cells.flatten(), minlength=len(preds) * (num_classes + 1) * columns)
    return counts.view(len(preds), num_classes + 1, columns)[:, :num_classes]
