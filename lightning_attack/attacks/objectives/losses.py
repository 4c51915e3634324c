"""Objectives other than the cross-entropy: Jensen-Shannon divergence, spherical, Tsallis and DLR losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.objectives.base import Moment, Objective
from lightning_attack.attacks.prediction import Prediction

SMALLEST_SPREAD = 1e-6
"""Least difference of logits that `LogitsRatio` divides by: about what float32 tells apart at logits of 10."""


class JensenShannon(Objective):
    """JSPGD's loss: bounded, so that pixels which are fooled for sure pull no more.

    Source: F. Croce, N. D. Singh, M. Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic
    Segmentation Models" (SEA), ECCV 2024, arXiv 2306.12941.

        L_i = 1/2 KL(p || m) + 1/2 KL(e_y || m),   m = (p + e_y) / 2,  p = softmax(z_i),  e_y = onehot(y_i)
            = log 2 - 1/2 (1 + p_y) log(1 + p_y) + 1/2 p_y log p_y,   from 0 at p_y = 1 to log 2 at p_y = 0
        dL_i / dz_k = 1/2 p_y log(p_y / (1 + p_y)) ([k = y] - p_k),   0 at both ends

    In a targeted attack it falls; pixels far from their wanted class then hardly move.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        >>> JensenShannon()(prediction, Moment(0, 1))      # log 2 - 3/4 log 3/2 + 1/4 log 1/2
        tensor([[[0.2158, 0.0000]]])
    """

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        cross_entropy = prediction.cross_entropy
        p = torch.exp(-cross_entropy)
        loss = math.log(2) - 0.5 * ((1 + p) * torch.log1p(p) + p * cross_entropy)
        return loss.masked_fill(~prediction.valid, 0)


class LabelLogit(Objective):
    """Lower the logit of the label, whatever becomes of the others.

    Source: Y. Huang, A. W.-K. Kong, "Transferable Adversarial Attack based on Integrated Gradients", ICLR 2022, arXiv
    2205.13152 (TAIG), which integrates the gradient of this logit.

        L_i = -z_y

    Its gradient is as large at pixels that are fooled for long as at others.

    Example:
        >>> logits = torch.tensor([[[[4.0, 4.0]], [[3.0, 3.0]]]])
        >>> LabelLogit()(Prediction(logits, torch.tensor([[[0, 255]]])), Moment(0, 1))
        tensor([[[-4.,  0.]]])
    """

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        return (-prediction.of_label(prediction.logits)).masked_fill(~prediction.valid, 0)


class MaskedSpherical(Objective):
    """The label's share in the length of the logits, of the pixels that are not fooled yet.

    Source: the released code of SEA (F. Croce, N. D. Singh, M. Hein, arXiv 2306.12941) and an earlier version of its
    paper; the published ensemble has no such loss.

        L_i = -z_y / ||z_i||_2 on P_T,  0 elsewhere

    It sees neither the size of the logits nor how sure the softmax is, so its gradient does not vanish where that of
    the cross-entropy does. In a targeted attack P_T are the pixels that have not taken the wanted class yet.

    Example:
        >>> logits = torch.tensor([[[[4.0, 4.0]], [[3.0, 3.0]]]])        # lengths 5
        >>> MaskedSpherical()(Prediction(logits, torch.tensor([[[0, 1]]])), Moment(0, 1))
        tensor([[[-0.8000,  0.0000]]])
    """

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        length = torch.linalg.vector_norm(prediction.logits, dim=1)
        share = prediction.of_label(prediction.logits) / torch.where(length > 0, length, 1)
        return (-share).masked_fill(~prediction.unfooled, 0)


class Tsallis(Objective):
    """TsallisPGD: first the pixels that are confidently right, in the end the usual cross-entropy.

    Source: "TsallisPGD: Adaptive Gradient Weighting for Adversarial Attacks on Semantic Segmentation", 2026,
    arXiv 2605.03405.

        L_i = (1 - p_y^(1-q)) / (1 - q),   p = softmax(z_i);   -log p_y at q = 1
        dL_i / dz_k = p_y^(1-q) (p_k - [k = y]): the cross-entropy's, times p_y^(1-q)
        q = q_start at the first step, q_end at the last, linear between; a single step has q_start

    The paper chose its course of q on validation images, and runs APGD of 300 steps over shrinking radii; the loss is
    all there is here. In a targeted attack it falls; below q = 1, pixels far from their wanted class then hardly move.

    Args:
        q_start: at most 1; -2 in the paper.
        q_end: at most 1; 1 in the paper. Above 1 the gradient of fooled pixels would grow without bound.

    Raises:
        ValueError: q_start or q_end is above 1 or not finite.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
        >>> Tsallis()(prediction, Moment(step=0, steps=2))      # (1 - (1/2)^3) / 3
        tensor([[[0.2917]]])
        >>> Tsallis()(prediction, Moment(step=1, steps=2))      # log 2
        tensor([[[0.6931]]])
    """

    def __init__(self, q_start: float = -2.0, q_end: float = 1.0) -> None:
        if not (-math.inf < q_start <= 1 and -math.inf < q_end <= 1):
            raise ValueError(f"q_start={q_start}, q_end={q_end}: must be at most 1, and finite")
        self.q_start, self.q_end = q_start, q_end

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        share = moment.step / max(moment.steps - 1, 1)
        exponent = 1 - ((1 - share) * self.q_start + share * self.q_end)
        if exponent == 0:
            return prediction.cross_entropy
        return -torch.expm1(-exponent * prediction.cross_entropy) / exponent


class LogitsRatio(Objective):
    """DLR, the difference-of-logits-ratio margin: how far the label is ahead, over the spread of the leading logits.

    Source: F. Croce, M. Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks" (AutoAttack), ICML 2020, arXiv 2003.01690. Written there for one label per image.

        L_i = -(z_y - max_{k != y} z_k) / (z_(1) - z_(3)),   z_(1) >= z_(2) >= z_(3) the largest logits of the pixel

    Neither shifts nor scales of the logits alter it; above 0 the pixel is fooled. The spread is taken as no less than
    1e-6; the released code adds 1e-12, with which one pixel of three equal logits outweighs its whole image. In a
    targeted attack the same ratio falls, with the wanted class as y; the paper has another one for that, with the true
    class in it, which an attack here is not told.

    Args:
        masked: count only the pixels that are not fooled yet, as in `MaskedCrossEntropy`. The paper needs no mask: it
            stops at images that are fooled. Without it, pixels fooled by far pull as much as others.

    Raises:
        ValueError: at the first use, the model has fewer than 3 classes.

    Example:
        >>> logits = torch.tensor([5.0, 3.0, 1.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 1, 2)
        >>> LogitsRatio()(Prediction(logits, torch.tensor([[[0, 3]]])), Moment(0, 1))      # -(5 - 3)/4, -(0 - 5)/4
        tensor([[[-0.5000,  1.2500]]])
    """

    def __init__(self, masked: bool = False) -> None:
        self.masked = masked

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        classes = prediction.logits.shape[1]
        if classes < 3:
            raise AttackError(
                f"the model has {classes} classes; LogitsRatio divides by the difference of the largest and the third "
                "largest logit and needs 3 or more. CrossEntropy does with fewer"
            )
        largest, order = prediction.logits.topk(3, dim=1)
        rival = torch.where(order[:, 0] == prediction.known_labels, largest[:, 1], largest[:, 0])
        spread = (largest[:, 0] - largest[:, 2]).clamp_min(SMALLEST_SPREAD)
        loss = (rival - prediction.of_label(prediction.logits)) / spread
        return loss.masked_fill(~(prediction.unfooled if self.masked else prediction.valid), 0)
