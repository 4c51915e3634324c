"""What an attack maximises, pixel by pixel. The loop knows only the interface; the formulas are here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.base import IGNORE_INDEX


class Prediction:
    """What a model says about a batch, with the quantities that objectives share; each is computed once, if at all.

    Args:
        logits: (B, C, H, W) in the geometry of the labels; half types are raised to float32.
        labels: (B, H, W) int64, 255 = ignored.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 4 or logits.shape[0] != labels.shape[0] or logits.shape[2:] != labels.shape[1:]:
            raise ValueError(
                f"the model returned {tuple(logits.shape)} for labels {tuple(labels.shape)}; expected logits "
                "(B, C, H, W) of the images' size (SegmentationModel resizes them)"
            )
        self.logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        self.labels = labels

    @cached_property
    def log_probs(self) -> Tensor:
        """Log softmax over the classes, (B, C, H, W)."""
        # Kept for all who ask, also where the first to ask (a weight) is in no_grad.
        with torch.set_grad_enabled(self.logits.requires_grad):
            return F.log_softmax(self.logits, dim=1)

    @cached_property
    def cross_entropy(self) -> Tensor:
        """-log p_y of each pixel, (B, H, W); 0 on ignored pixels."""
        with torch.set_grad_enabled(self.logits.requires_grad):
            return F.nll_loss(self.log_probs, self.labels, ignore_index=IGNORE_INDEX, reduction="none")

    @cached_property
    def valid(self) -> Tensor:
        """Pixels with a label, (B, H, W) bool."""
        return self.labels != IGNORE_INDEX

    @cached_property
    def correct(self) -> Tensor:
        """P_T: labelled pixels whose predicted class is the label, (B, H, W) bool."""
        # max(1)[1] is argmax(1) and several times faster on (B, C, H, W) logits.
        return self.logits.detach().max(1)[1] == self.labels

    @cached_property
    def count(self) -> Tensor:
        """Number of labelled pixels of each image, (B,)."""
        return self.valid.flatten(1).sum(1)

    def fraction(self, pixels: Tensor) -> Tensor:
        """Share of each image's labelled pixels that a map (B, H, W) of booleans marks, (B,); NaN where none is."""
        return (pixels & self.valid).flatten(1).sum(1) / self.count


@dataclass
class Moment:
    """Where the attack stands, for objectives that ask.

    Attributes:
        step: number of the step, from 0.
        steps: how many there will be.
        clean: prediction for the clean images, where the objective `needs_clean`.
        memory: what an objective keeps from step to step; new for each attacked batch.
        figures: what an objective reports about this step, one value (B,) per image and name.
        first: whether this is the first look at the model in this step. Techniques that look several times
            (several views, several query points) must not be counted several times.
    """

    step: int
    steps: int
    clean: Prediction | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)
    first: bool = True

    def report(self, name: str, values: Tensor) -> None:
        """Keep a figure (B,) of this step, as seen at its first look at the model."""
        if self.first:
            self.figures[name] = values


class Objective(ABC):
    """Loss of each pixel, to be maximised. Objects hold settings only; what lasts over steps is in `Moment.memory`."""

    needs_clean = False
    """Whether `Moment.clean` is wanted (one more forward pass per batch)."""

    @abstractmethod
    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Loss of each pixel, (B, H, W), 0 on ignored pixels."""


class CrossEntropy(Objective):
    """The loss of FGSM, PGD and most others: L_i = -log p_i(y_i).

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        >>> CrossEntropy()(prediction, Moment(0, 1))      # log 2, and an ignored pixel
        tensor([[[0.6931, 0.0000]]])
    """

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        return prediction.cross_entropy


class WeightedCrossEntropy(Objective):
    """Cross-entropy of each pixel times a weight that carries no gradient: L_i = w_i CE_i."""

    @abstractmethod
    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Weight of each pixel, (B, H, W)."""

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        with torch.no_grad():
            weights = self.weights(prediction, moment)
        return weights * prediction.cross_entropy


class SegPGD(WeightedCrossEntropy):
    """SegPGD: first the still correct pixels, later more and more the misclassified ones too.

    Source: J. Gu, H. Zhao, V. Tresp, P. Torr, "SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and
    Boosting Segmentation Robustness", ECCV 2022, arXiv 2207.12391.

        w_i = 1 - lambda on P_T (still correct),  lambda on P_F (misclassified),   lambda = t / (2 T),  t = 0 .. T-1

    Example:
        >>> logits = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])        # class 0 at both pixels
        >>> prediction = Prediction(logits, torch.tensor([[[0, 1]]]))    # correct, misclassified
        >>> SegPGD().weights(prediction, Moment(step=1, steps=2))        # lambda = 1/4
        tensor([[[0.7500, 0.2500]]])
    """

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        wrong = moment.step / (2 * moment.steps)
        return two_weights(prediction.correct, 1 - wrong, wrong, prediction.logits.dtype)


class CosPGD(WeightedCrossEntropy):
    """CosPGD: weight by how well the prediction agrees with the label.

    Source: S. Agnihotri, S. Jung, M. Keuper, "CosPGD: an efficient white-box adversarial attack for pixel-wise
    prediction tasks", ICML 2024, arXiv 2302.02213.

        w_i = cos(softmax(z_i), onehot(y_i)) = p_i(y_i) / ||p_i||_2,  detached as in the released code

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
        >>> CosPGD().weights(prediction, Moment(0, 1))      # 0.5 / sqrt(0.5^2 + 0.5^2)
        tensor([[[0.7071]]])
    """

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        probs = prediction.log_probs.detach().exp()
        labels = torch.where(prediction.valid, prediction.labels, 0)
        return probs.gather(1, labels[:, None])[:, 0] / probs.norm(dim=1)


def two_weights(mask: Tensor, inside: float, outside: float, dtype: torch.dtype) -> Tensor:
    """`inside` where the mask is true, `outside` elsewhere."""
    return torch.full_like(mask, outside, dtype=dtype).masked_fill_(mask, inside)
