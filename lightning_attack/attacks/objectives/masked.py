"""Cross-entropy on some of the pixels: those not fooled yet, balanced by class, or a region that grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.objectives.base import Moment, WeightedCrossEntropy, two_weights
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.to_device import to_device


class MaskedCrossEntropy(WeightedCrossEntropy):
    """Cross-entropy of the pixels that are not fooled yet; the fooled ones are left alone.

    Sources: C. Xie, J. Wang, Z. Zhang, Y. Zhou, L. Xie, A. Yuille, "Adversarial Examples for Semantic Segmentation and
    Object Detection" (DAG), ICCV 2017, arXiv 1703.08603, which masks so; F. Croce, N. D. Singh, M. Hein, "Towards
    Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models" (SEA), ECCV 2024, arXiv 2306.12941,
    where it is the loss MCE.

        L_i = CE_i on P_T (prediction = label),  0 elsewhere

    In a targeted attack P_T are the pixels that have not taken the wanted class yet. The mask is made anew at every
    step and carries no gradient. It is SegPGD with lambda = 0, and `FoolAllPixels(gamma=0)`.

    Departs from DAG, which lowers the difference of two logits, adds up raw gradients over up to 200 steps without a
    bound, and stops when all is fooled: this is the bounded form to which SegPGD compares itself. Departs from SEA,
    whose step sizes follow the loss without the mask: here there is one loss for all.

    Args:
        temperature: of the cross-entropy, see `CrossEntropy`; 1 in the papers.

    Raises:
        ValueError: temperature is not above 0.

    Example:
        >>> logits = torch.tensor([[[[0.0, 1.0]], [[0.0, 2.0]]]])        # classes 0 and 1
        >>> MaskedCrossEntropy()(Prediction(logits, torch.tensor([[[0, 0]]])), Moment(0, 1))
        tensor([[[0.6931, 0.0000]]])
    """

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        return prediction.unfooled.to(prediction.logits.dtype)


class BalancedCrossEntropy(WeightedCrossEntropy):
    """Cross-entropy in which the classes of small areas weigh more: aims at mIoU, in which all classes count alike.

    A loss of this project, after the balance of SEA (see `BalancedMaskedCrossEntropy`), without its mask.

        L_i = w_{y_i} CE_i,    w_c proportional to N_c^-power,    N_c = pixels of class c in the image's labels

    The weights' mean over the image's labelled pixels is 1.

    Args:
        power: from 0, the plain cross-entropy, to 1, in which all classes of the image weigh the same.
        temperature: of the cross-entropy, see `CrossEntropy`.
        pull: above 0 pixels are also drawn to the largest other class of the image, see `WeightedCrossEntropy`.

    Raises:
        ValueError: power or pull is outside [0, 1], or temperature not above 0.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 5), torch.tensor([[[0, 0, 0, 0, 1]]]))
        >>> BalancedCrossEntropy(power=0.5)(prediction, Moment(0, 1))     # log 2 times 5/6 and 5/3
        tensor([[[0.5776, 0.5776, 0.5776, 0.5776, 1.1552]]])
    """

    def __init__(self, power: float = 0.5, temperature: float = 1.0, pull: float = 0.0) -> None:
        super().__init__(temperature, power, pull)

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        return prediction.valid.to(prediction.logits.dtype)


class BalancedMaskedCrossEntropy(WeightedCrossEntropy):
    """As `MaskedCrossEntropy`, and each class counts the same, however few pixels it has: aims at mIoU.

    Source: F. Croce, N. D. Singh, M. Hein (SEA), ECCV 2024, arXiv 2306.12941, the loss MCE-Bal.

        L_i = CE_i / n_{y_i} on P_T,  0 elsewhere;   n_c = N_c / mean_k N_k,  N_c = pixels of class c

    Dividing N by its mean is ours: it alters no step, and keeps the loss in the size of a cross-entropy (the mean
    weight of all counted pixels is 1).

    Args:
        class_pixels: N, number or share of each class's pixels in the training set, above 0, one for each class of
            the model, as in the paper. None: those of the image's own labels, which needs no training set and departs
            from the paper: a class that is rare everywhere weighs no more than one that is rare in this image.
        temperature: of the cross-entropy, see `CrossEntropy`; 1 in the paper.

    Raises:
        ValueError: class_pixels is empty or not above 0, temperature is not above 0; at the first use, the model has
            another number of classes.

    Example:
        >>> logits = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]]])
        >>> prediction = Prediction(logits, torch.tensor([[[0, 0, 0, 1]]]))                # N = 3, 1: n = 3/2, 1/2
        >>> BalancedMaskedCrossEntropy().weights(prediction, Moment(0, 1))
        tensor([[[0.6667, 0.6667, 0.6667, 2.0000]]])
    """

    def __init__(self, class_pixels: Sequence[float] | None = None, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        if class_pixels is not None and not (class_pixels and all(0 < n < math.inf for n in class_pixels)):
            raise ValueError(f"class_pixels={class_pixels}: must be finite numbers above 0, one per class (or null)")
        self.class_pixels = None if class_pixels is None else list(class_pixels)

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        images, classes = prediction.logits.shape[:2]
        if self.class_pixels is None:
            weights = _inverse(prediction.pixels_of_classes)
        elif len(self.class_pixels) == classes:
            # In float64 on the host: float32 cannot count the pixels of a training set.
            of_classes = _inverse(torch.tensor(self.class_pixels, dtype=torch.float64)[None])
            of_classes = of_classes.to(prediction.logits.dtype)
            weights = to_device(of_classes, prediction.logits.device).expand(images, -1)
        else:
            raise AttackError(
                f"class_pixels has {len(self.class_pixels)} numbers, the model {classes} classes; give one per class"
            )
        of_pixels = weights.gather(1, prediction.known_labels.flatten(1)).view_as(prediction.labels)
        return of_pixels * prediction.unfooled


class EroSeg(WeightedCrossEntropy):
    """EroSeg: first the pixels of which the model is unsure, step by step those of which it is surer.

    Source: Y. Song, Z. Zhou, M. Deng, Y. Hu, S. Hu, M. Li, L. Y. Zhang, "Erosion Attack for Adversarial Training to
    Enhance Semantic Segmentation Robustness", 2026, arXiv 2601.14950.

        S   = { i in P_T : max_c p_ic < tau_t },   tau_t = 1 - (1 - tau) exp(-growth t),  t = 0 .. T-1
        L_i = w_{y_i} CE_i on S,  0 elsewhere;     w = foreground or background

    The paper takes the mean over S, which scales an image's gradient as a whole and alters no step. In a targeted
    attack P_T are the pixels that have not taken the wanted class yet, and w is that of the wanted class. An image
    without a pixel in S stays where it is in that step, as in the paper. Whether t counts from 0 or 1 is not known to
    us. The paper's budget is 8/255 with steps of 0.001, as printed.

    Args:
        tau: confidence in (0, 1] below which pixels are attacked in the first step.
        growth: how fast that limit goes to 1 per step, 0 or more; it does not depend on the number of steps.
        foreground: weight of pixels of other classes than the background, 0 or more.
        background: weight of pixels of the background, 0 or more.
        background_class: number of the background's class; None where there is none, as in Cityscapes.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> logits = torch.tensor([[[[1.0, 0.0, 9.0, 1.0]], [[0.0, 1.0, 0.0, 0.0]]]])    # 73 %, 73 %, 99.99 %, 73 %
        >>> prediction = Prediction(logits, torch.tensor([[[0, 1, 0, 1]]]))               # the last one is fooled
        >>> EroSeg().weights(prediction, Moment(0, 20))
        tensor([[[0.3000, 0.7000, 0.0000, 0.0000]]])
    """

    def __init__(
        self,
        tau: float = 0.8,
        growth: float = 0.8,
        foreground: float = 0.7,
        background: float = 0.3,
        background_class: int | None = 0,
    ) -> None:
        super().__init__()
        if not 0 < tau <= 1 or not 0 <= growth < math.inf:
            raise ValueError(f"tau={tau} must be above 0 and at most 1, growth={growth} 0 or more")
        if not (0 <= foreground < math.inf and 0 <= background < math.inf and foreground + background > 0):
            raise ValueError(f"foreground={foreground}, background={background}: must be 0 or more, and not both 0")
        self.tau, self.growth = tau, growth
        self.foreground, self.background, self.background_class = foreground, background, background_class

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        limit = 1 - (1 - self.tau) * math.exp(-self.growth * moment.step)
        sensitive = prediction.unfooled & (prediction.log_probs.max(1)[0] < math.log(limit))
        # No label is -1.
        in_background = prediction.labels == (-1 if self.background_class is None else self.background_class)
        return sensitive * two_weights(in_background, self.background, self.foreground, prediction.logits.dtype)


def _inverse(counts: Tensor) -> Tensor:
    """Mean of the counts above 0 over each count; 0 where the count is. (B, C)."""
    mean = counts.sum(1, keepdim=True) / counts.gt(0).sum(1, keepdim=True).clamp_min(1)
    return torch.where(counts > 0, mean / counts.clamp_min(torch.finfo(counts.dtype).tiny), 0)
