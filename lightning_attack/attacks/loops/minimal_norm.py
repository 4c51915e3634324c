"""`MinimalNorm`: base of attacks that have no budget, but seek the smallest change that fools enough pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.loops.gradient import check_labels
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.common.pixels import Pixels, parse_pixels


class MinimalNorm(Attack):
    """An attack without a radius: fool at least `threshold` of an image's labelled pixels, and change little for it.

    The log gets after each step, per image: `loss` (what the attack lowers, mean over labelled pixels), `p_t` (share of
    labelled pixels not won), both at the point that the step began at, `success` (whether the threshold has been
    reached) and `linf` (the L-inf norm, in [0, 1] pixels, of the best solution so far; NaN where there is none).

    Rounding to 8 bits is to the nearest level: it moves a value by up to half a level, which can undo a solution whose
    change is not much larger than that.

    Args:
        steps: number of forward and backward passes, 1 or more.
        threshold: share of labelled pixels to fool, in (0, 1]; in a targeted attack, to take the wanted class.
        step_size: length of a step, of [0, 1] pixels, above 0.
        name: name in tables and folders.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, steps: int, threshold: float, step_size: Pixels, name: str) -> None:
        super().__init__(name)
        if steps < 1:
            raise ValueError(f"steps={steps}: must be 1 or more")
        if not 0 < threshold <= 1:  # NaN too
            raise ValueError(f"threshold={threshold}: must be above 0 and at most 1; the papers' is 0.99")
        self.steps, self.threshold = steps, threshold
        self.step_size = parse_pixels(step_size, "step_size")


class Best:
    """The best iterate of each image so far.

    That is the one with the smallest norm of those that reach the threshold; as long as none does, the one with most
    fooled pixels, and of equally many the one with the smallest norm.

    Args:
        problem: the batch.
        threshold: share of labelled pixels to fool.

    Attributes:
        images: the best iterates, (B, 3, H, W).
        success: whether they reach the threshold, (B,) bool; never without labelled pixels.
        reached: whether the last iterate reaches it, (B,) bool.
    """

    def __init__(self, problem: Problem, threshold: float) -> None:
        self.problem, self.threshold = problem, threshold
        self.images = problem.images
        each = problem.images.new_zeros(len(problem.images))
        self.success = self.reached = each.bool()
        self._norm, self._fooled = each + math.inf, each.long() - 1

    def update(self, x: Tensor, prediction: Prediction) -> None:
        """Keep those images of x that are better than the best so far."""
        norm = (x - self.problem.images).detach().flatten(1).abs().amax(1)
        unfooled = prediction.unfooled.flatten(1).sum(1)
        self.reached = (unfooled <= spared(prediction, self.threshold)) & (prediction.count > 0)
        fooled = prediction.count - unfooled
        more = (fooled > self._fooled) | (fooled == self._fooled) & (norm < self._norm)
        better = torch.where(self.success, self.reached & (norm < self._norm), self.reached | more)
        self.images = torch.where(better.view(-1, 1, 1, 1), x.detach(), self.images)
        self._norm = torch.where(better, norm, self._norm)
        self._fooled = torch.where(better, fooled, self._fooled)
        self.success = self.success | self.reached

    def log(self, step: int, prediction: Prediction, loss: Tensor) -> None:
        """Write the figures of a step; `loss` is summed over each image's labelled pixels, (B,)."""
        figures = {
            "loss": loss.detach() / prediction.count,
            "p_t": prediction.fraction(prediction.unfooled),
            "success": self.success,
            "linf": torch.where(self.success, self._norm, torch.nan),
        }
        self.problem.log(step, figures)


def evaluate(problem: Problem, x: Tensor, first: bool) -> Prediction:
    """The model's prediction for x; the first time it also checks that the labels are classes of the model."""
    prediction = problem.predict(x)
    if first:
        check_labels(problem.labels, prediction.logits.shape[1])
        if prediction.logits.shape[1] < 2:
            raise AttackError("the model has one class; margins between classes need two or more")
    return prediction


def spared(prediction: Prediction, threshold: float, share: float = 1.0) -> Tensor:
    """How many labelled pixels of each image may stay unfooled, (B,); `share` of it, rounded down.

    Example:
        >>> spared(Prediction(torch.zeros(1, 2, 1, 10), torch.zeros(1, 1, 10, dtype=torch.int64)), 0.7)
        tensor([3])
    """
    # A thousandth of a pixel covers the rounding of (1 - 0.7) * 10.
    return ((1 - threshold) * share * prediction.count + 1e-3).long()


def margin(prediction: Prediction) -> Tensor:
    """How far each pixel is from being won, (B, H, W): negative where it is; any number on ignored pixels.

    z_y - max_(k != y) z_k, and in a targeted attack its negative.

    Example:
        >>> margin(Prediction(torch.tensor([3.0, 1.0, 2.0]).view(1, 3, 1, 1), torch.tensor([[[0]]])))
        tensor([[[1.]]])
    """
    own = prediction.of_label(prediction.logits)
    others = prediction.logits.scatter(1, prediction.known_labels[:, None], -math.inf).amax(1)
    return others - own if prediction.targeted else own - others
