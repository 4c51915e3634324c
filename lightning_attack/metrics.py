"""torchmetrics of the project: segmentation scores from one confusion matrix, and the size of a perturbation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


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

    Args:
        num_classes: classes of labels and predictions are 0..num_classes-1.
        ignore_index: label of pixels that do not count.

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

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=counts, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count predicted classes `preds` against labels `target`, both (B, H, W) or any one shape, integers."""
        if preds.shape != target.shape:
            raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must have one shape")
        classes = self.num_classes
        preds, target = preds.long(), target.long()
        ignored = target == self.ignore_index
        foreign = ((target < 0) | (target >= classes)) & ~ignored | (preds < 0) | (preds >= classes)
        if foreign.any():
            raise ValueError(
                f"labels are {int(target.min())}..{int(target.max())}, predictions {int(preds.min())}.."
                f"{int(preds.max())}; allowed are 0..{classes - 1} (and {self.ignore_index} for labels)"
            )
        # One extra row takes the ignored pixels: cheaper than selecting the others.
        rows = torch.where(ignored, classes, target)
        counts = torch.bincount((rows * classes + preds).flatten(), minlength=(classes + 1) * classes)
        self.confusion += counts[: classes * classes].view(classes, classes)

    def compute(self) -> dict[str, Tensor]:
        """`miou`, `miou_union`, `accuracy` and `iou` (C,), NaN for classes without a label; float64, on the CPU."""
        counts = self.confusion.cpu().double()  # not every device has float64
        hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou = hits / (labelled + predicted - hits)  # 0 / 0 = NaN where a class is in neither
        occurs = labelled > 0
        return {
            "miou": iou[occurs].mean(),
            "miou_union": iou.nanmean(),
            "accuracy": hits.sum() / counts.sum(),
            "iou": torch.where(occurs, iou, torch.nan),
        }


class PerturbationSize(Metric):
    """How far adversarial images lie from the clean ones, in the norms of the field.

        linf = largest |adversarial - clean| over all images, in levels of 1/255 (whole ones are cut clean)
        linf_median = median over images of the largest |adversarial - clean| of each, in levels of 1/255: the figure of
            minimal-norm attacks
        l2   = mean over images of ||adversarial - clean||_2, of [0, 1] pixels
        psnr = mean over images of 10 log10(1 / MSE), in dB; infinite where an image was not changed

    Example:
        >>> size = PerturbationSize()
        >>> size.update(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2))
        >>> {name: round(value.item(), 4) for name, value in size.compute().items()}    # 25.5/255, 0.1 sqrt(12), 20 dB
        {'linf': 25.5, 'linf_median': 25.5, 'l2': 0.3464, 'psnr': 20.0}
    """

    is_differentiable = False
    full_state_update = False
    linf: list[Tensor]
    l2: Tensor
    psnr: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("linf", default=[], dist_reduce_fx="cat")
        for name in ("l2", "psnr"):
            self.add_state(name, default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, adversarial: Tensor, clean: Tensor) -> None:
        """Add images (B, 3, H, W) in [0, 1]."""
        delta = (adversarial - clean).flatten(1).float()
        levels = delta.abs().amax(1) * 255
        # float32 images are on the 8-bit grid but for about 1e-5 levels; a thousandth is no violation of a budget.
        self.linf.append(torch.where((levels - levels.round()).abs() < 1e-3, levels.round(), levels))
        self.l2 += delta.norm(dim=1).sum()
        self.psnr += (-10 * delta.square().mean(1).log10()).sum()
        self.images += len(delta)

    def compute(self) -> dict[str, Tensor]:
        """`linf`, `linf_median`, `l2` and `psnr`, scalars."""
        linf = dim_zero_cat(self.linf)
        return {
            "linf": linf.max(),
            "linf_median": linf.quantile(0.5),
            "l2": self.l2 / self.images,
            "psnr": self.psnr / self.images,
        }
