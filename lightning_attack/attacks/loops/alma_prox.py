"""`ALMAProx`: the smallest L-inf change that fools enough pixels, by an augmented Lagrangian and proximal steps."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.loops.minimal_norm import Best, MinimalNorm, evaluate, margin, spared
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.common.pixels import Pixels

SMOOTHING = 0.8
"""Of the multipliers mu and of the squared gradients, the papers' alpha."""
CHECK_EVERY, IMPROVEMENT, GROWTH = 10, 0.95, 2.0
"""Every so many steps rho grows by this factor where a constraint is not below this share of what it was."""
FIRST_RHO, LARGEST_RHO = 0.01, 1e6
SMALLEST_MU, LARGEST_MU = 1e-12, 1.0
SMALLEST_SCALE, LARGEST_SCALE, SCALE_RATE = 0.1, 1.0, 0.02
"""Bounds of the constraints' scale w and how much it moves in a step."""
TOLERANCE = 1e-4
"""How far beyond a tie, in logits, a pixel must be."""
HALVINGS = 30
"""Of [0, 1], so that the norm is exact to 1e-9."""


class ALMAProx(MinimalNorm):
    """ALMA prox: minimise the L-inf norm under one constraint per pixel, of which a small share may be broken.

    Source: J. Rony, J.-C. Pesquet, I. Ben Ayed, "Proximal Splitting Adversarial Attack for Semantic Segmentation", CVPR
    2023, arXiv 2206.07179.

        minimise max|delta|  such that  d_i < 0 on `threshold` of the labelled pixels,  0 <= x + delta <= 1
        d_i = (z_y - max_(k != y) z_k + 1e-4) / (z_(1) - z_(3))             z_(j) = j-th largest logit of the pixel

    Each step lowers max|delta| + sum_i P(w d_i, rho_i, mu_i) by a gradient step on P and the proximal step of the norm:

        P(y, rho, mu) = mu y + mu rho y^2 + rho^2 y^3 / 6   for y >= 0,     mu y / (1 - max(1, rho) y)   for y < 0
        mu <- 0.8 mu + 0.2 dP/dy, within [1e-12, 1]
        rho doubles every 10 steps for pixels that were not fooled in any of them and whose w d fell by less than 5 %
        w falls by 2 % after a step with success and grows by 2 % after one without, within [0.1, 1]
        h = sqrt(mean of squared gradients, smoothed by 0.8),      v = delta - lambda * gradient / h
        delta <- argmin over u of lambda max|u| + 1/2 sum h (u - v)^2  within [0, 1]
        lambda = step_size until the first success (at the latest half of the steps), then falling to a tenth

    The pixels that are hardest to fool are left out of the sum: as many as the threshold spares, from none at first to
    all of them in the last step.

    Returned is for each image the iterate with the smallest norm that reaches the threshold; where none does, the one
    with most fooled pixels.

    Departs from the released code: dP/dy is mu + 2 mu rho y + rho^2 y^2 / 2 for y >= 0, the derivative of the paper's
    P. The released one begins with mu y, which is 0 at y = 0 where a penalty of this kind must have the slope mu. The
    proximal step bisects where code and paper search by thirds: the same minimum. rho stays below 1e6, so that squares
    of gradients do not overflow. In a targeted attack
    d_i = (max_(k != y) z_k - z_y + 1e-4) / (z_(1) - (z_(3) + z_(4)) / 2), with the tolerance on the side that asks for
    more. With three classes the targeted denominator is z_(1) - z_(3). With two classes the ratio has no gradient
    anywhere; there the denominator is the mean of z_(1) - z_(2) over the clean image's labelled pixels.

    Args:
        steps: number of forward and backward passes, 1 or more; the paper's is 500.
        threshold: share of labelled pixels to fool, in (0, 1]; the paper's is 0.99.
        step_size: lambda at first, of [0, 1] pixels, above 0; the paper's is 0.001. With few steps, larger ones.
        name: name in tables and folders.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)              # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> model.bias = torch.nn.Parameter(torch.tensor([-1.5, 1.5]))                      # the border is at 0.5
        >>> images, labels = torch.full((1, 3, 1, 2), 0.55), torch.zeros(1, 1, 2, dtype=torch.int64)
        >>> change = ALMAProx(steps=200)(model, images, labels) - images
        >>> bool(0.05 < change.abs().max() < 0.051)
        True
    """

    def __init__(
        self, steps: int = 500, threshold: float = 0.99, step_size: Pixels = 0.001, name: str = "alma_prox"
    ) -> None:
        super().__init__(steps, threshold, step_size, name)

    def perturb(self, problem: Problem) -> Tensor:
        images, best = problem.images, Best(problem, self.threshold)
        change, squares = torch.zeros_like(images), torch.zeros_like(images)
        scale = images.new_full((len(images), 1, 1), LARGEST_SCALE)
        first_success = torch.full_like(scale, self.steps // 2)
        of_two = torch.zeros_like(scale)
        multipliers = _Multipliers(problem)
        for step in range(self.steps):
            x = problem.inside((images + change).clamp(0, 1)).requires_grad_()
            prediction = evaluate(problem, x, step == 0)
            of_two = _mean_margin(prediction) if step == 0 else of_two
            seen_before = best.success
            best.update(x, prediction)
            now = (best.success & ~seen_before).view(-1, 1, 1)
            first_success = torch.where(now & (first_success > step), step, first_success)
            scale = scale / torch.where(best.reached.view(-1, 1, 1), 1 + SCALE_RATE, 1 - SCALE_RATE)
            scale = scale.clamp(SMALLEST_SCALE, LARGEST_SCALE)

            constraint = scale * (margin(prediction) + TOLERANCE) / _spread(prediction, of_two)
            share = step / max(self.steps - 1, 1)
            counted = _without_hardest(constraint.detach(), prediction, self.threshold, share)
            multipliers.update(constraint.detach(), counted, prediction, step)
            values = penalty(constraint, multipliers.rho, multipliers.mu)
            loss = torch.where(counted, values, 0).flatten(1).sum(1)
            best.log(step, prediction, loss)

            gradient = problem.inside_only(torch.autograd.grad(loss.sum(), x)[0])
            squares = SMOOTHING * squares + (1 - SMOOTHING) * gradient**2
            metric = (squares / (1 - SMOOTHING ** (step + 1))).sqrt().clamp_min(1e-8)
            length = (self.step_size * self._decay(step, first_success))[..., None]
            change = change - length * gradient / metric
            change = proximal_linf(change, length, metric, -images, 1 - images)
        return best.images

    def _decay(self, step: int, first_success: Tensor) -> Tensor:
        """From 1 at the first success on a hyperbola to 1/10 after the last step."""
        tangent = (self.steps - first_success).clamp_min(1) / 9
        return tangent / ((step - first_success).clamp_min(0) + tangent)


class _Multipliers:
    """rho and mu of each pixel, (B, H, W)."""

    def __init__(self, problem: Problem) -> None:
        shape = problem.labels.shape
        self.mu = problem.images.new_full(shape, LARGEST_MU)
        self.rho = problem.images.new_full(shape, FIRST_RHO)
        self._fooled = torch.zeros(shape, dtype=torch.bool, device=problem.images.device)
        self._last: Tensor | None = None

    def update(self, constraint: Tensor, counted: Tensor, prediction: Prediction, step: int) -> None:
        self._fooled = self._fooled | prediction.valid & ~prediction.unfooled
        if self._last is None:
            self._last = constraint
            return
        if (step + 1) % CHECK_EVERY == 0:
            improved = constraint * counted <= IMPROVEMENT * self._last
            self.rho = torch.where(self._fooled | improved, self.rho, (GROWTH * self.rho).clamp_max(LARGEST_RHO))
            self._last, self._fooled = constraint, torch.zeros_like(self._fooled)
        slope = torch.where(counted, penalty_slope(constraint, self.rho, self.mu), 0)
        self.mu = (SMOOTHING * self.mu + (1 - SMOOTHING) * slope).clamp(SMALLEST_MU, LARGEST_MU)


def penalty(y: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """P of broken (y >= 0) and kept constraints, see `ALMAProx`.

    Example:
        >>> penalty(torch.tensor([-1.0, 0.0, 6.0]), torch.tensor(1.0), torch.tensor(0.5))   # 3 + 18 + 36
        tensor([-0.2500,  0.0000, 57.0000])
    """
    broken = mu * y + mu * rho * y**2 + rho**2 * y**3 / 6
    return torch.where(y >= 0, broken, mu * y / (1 - rho.clamp_min(1) * y.clamp_max(0)))


def penalty_slope(y: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """dP/dy; mu at y = 0 from both sides.

    Example:
        >>> penalty_slope(torch.tensor([-1.0, 0.0, 6.0]), torch.tensor(1.0), torch.tensor(0.5))   # 0.5 + 6 + 18
        tensor([ 0.1250,  0.5000, 24.5000])
    """
    broken = mu + 2 * mu * rho * y + rho**2 * y**2 / 2
    return torch.where(y >= 0, broken, mu / (1 - rho.clamp_min(1) * y.clamp_max(0)) ** 2)


def proximal_linf(v: Tensor, length: Tensor, metric: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Proximal step: argmin over u in [low, high] of length * max|u| + 1/2 sum metric (u - v)^2, image by image.

    For a given max|u| = t the best u is v, cut to [low, high] and then to [-t, t]. The slope in t is
    length - sum of metric (|v| - t) over the values that t cuts; its zero is found by halving.

    Args:
        v: (B, 3, H, W).
        length: (B, 1, 1, 1), above 0.
        metric: (B, 3, H, W), above 0.
        low: (B, 3, H, W), at most 0.
        high: (B, 3, H, W), at least 0.

    Example:
        >>> v, one = torch.tensor([[[[3.0, -1.0]]]]), torch.ones(1, 1, 1, 1)
        >>> proximal_linf(v, one, one, -5 * one, 5 * one)             # 3 - t = 1
        tensor([[[[ 2., -1.]]]])
    """
    inside = v.minimum(high).maximum(low)
    reach, size = inside.abs(), v.abs()
    left, right = torch.zeros_like(length), reach.amax((1, 2, 3), keepdim=True)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        pull = torch.where(reach > middle, metric * (size - middle), 0).sum((1, 2, 3), keepdim=True)
        outward = pull > length
        left, right = torch.where(outward, middle, left), torch.where(outward, right, middle)
    return inside.minimum(right).maximum(-right)


def _spread(prediction: Prediction, of_two: Tensor) -> Tensor:
    """What margins are divided by, (B, H, W) or (B, 1, 1)."""
    classes = prediction.logits.shape[1]
    if classes == 2:
        return of_two + 1e-8
    top = prediction.logits.topk(min(classes, 4) if prediction.targeted else 3, dim=1).values
    return top[:, 0] - top[:, 2:].mean(1) + 1e-8


def _mean_margin(clean: Prediction) -> Tensor:
    """Mean size of the margins over each image's labelled pixels, (B, 1, 1)."""
    sizes = torch.where(clean.valid, margin(clean).detach().abs(), 0).flatten(1).sum(1)
    return (sizes / clean.count.clamp_min(1)).view(-1, 1, 1)


def _without_hardest(constraint: Tensor, prediction: Prediction, threshold: float, share: float) -> Tensor:
    """Labelled pixels but a share of the spared ones, those with the largest constraints, (B, H, W) bool."""
    pixels = prediction.labels[0].numel()
    most = min(int((1 - threshold) * pixels + 1e-3) + 1, pixels)
    known = constraint.masked_fill(~prediction.valid, -torch.inf)
    largest = known.flatten(1).topk(most, dim=1).values
    first_counted = spared(prediction, threshold, share).clamp_max(most - 1)[:, None]
    return prediction.valid & (constraint <= largest.gather(1, first_counted)[..., None])
