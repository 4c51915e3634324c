"""`DAG`: gradient steps on the margins of the pixels that are still right, until enough of them are not."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.loops.minimal_norm import Best, MinimalNorm, evaluate, margin
from lightning_attack.common.pixels import Pixels


class DAG(MinimalNorm):
    """Dense adversary generation: add up gradients of the unfooled pixels' margins until the threshold is reached.

    Source: C. Xie, J. Wang, Z. Zhang, Y. Zhou, L. Xie, A. Yuille, "Adversarial Examples for Semantic Segmentation and
    Object Detection", ICCV 2017, arXiv 1703.08603.

        J = sum over unfooled labelled pixels of z_y - max_(k != y) z_k             (targeted: its negative)
        r <- r - step_size * grad J / max|grad J|,     x = clip(x_0 + r, 0, 1),     r = 0 at first

    An image stops, and is returned, as soon as the share `threshold` of its pixels is fooled. There is no bound on
    the perturbation; its norm is the result. An image that never gets there comes back as the iterate with most fooled
    pixels (adv-lib's version returns the clean image instead, so that a near success counts as nothing).

    Departs from the paper: without wanted classes it lets every pixel go to its nearest other class, as adv-lib does,
    where the paper draws a random permutation of the classes and lowers z_y - z_wanted of pixels not there yet; and it
    stops at 99 % of the pixels, the paper at all of them. Pixels where two classes tie still pull.

    Args:
        steps: number of forward and backward passes, 1 or more; the paper's is 200.
        step_size: largest change of a value in one step, above 0. The paper's 0.5 is in levels of 8-bit images, hence
            the default; adv-lib's default of 0.5 is in [0, 1] pixels, far more than the smallest norm.
        threshold: share of labelled pixels to fool, in (0, 1].
        name: name in tables and folders.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)              # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> model.bias = torch.nn.Parameter(torch.tensor([-1.5, 1.5]))                      # the border is at 0.5
        >>> images, labels = torch.tensor([0.56, 0.9]).expand(1, 3, 1, 2), torch.tensor([[[0, 255]]])
        >>> DAG(step_size=0.05)(model, images, labels)[0, 0]          # two steps
        tensor([[0.4600, 0.9000]])
    """

    def __init__(
        self, steps: int = 200, step_size: Pixels = "0.5/255", threshold: float = 0.99, name: str = "dag"
    ) -> None:
        super().__init__(steps, threshold, step_size, name)

    def perturb(self, problem: Problem) -> Tensor:
        best, change = Best(problem, self.threshold), torch.zeros_like(problem.images)
        for step in range(self.steps):
            x = problem.inside((problem.images + change).clamp(0, 1)).requires_grad_()
            prediction = evaluate(problem, x, step == 0)
            best.update(x, prediction)
            loss = (margin(prediction) * prediction.unfooled).flatten(1).sum(1)
            best.log(step, prediction, loss)
            gradient = problem.inside_only(torch.autograd.grad(loss.sum(), x)[0])
            largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            going = ~best.success.view(-1, 1, 1, 1)
            # A truth value times a number is float32, whatever the images are.
            change = change - (going * self.step_size).to(change.dtype) * gradient / largest
        return best.images
