"""`TotalVariation`: denoising by total variation as a defence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.models.defences import Defence, DefendedView
from lightning_attack.models.wrapper import ModelError

_STEP = 0.25
"""Of the dual ascent; it converges up to this (J.-F. Aujol, J. Math. Imaging Vis. 34, 2009)."""


class TotalVariation(Defence):
    """The image of least total variation that is close to the given one, by Chambolle's dual algorithm.

    Sources: L. Rudin, S. Osher, E. Fatemi, "Nonlinear Total Variation Based Noise Removal Algorithms", Physica D 60,
    1992; A. Chambolle, "An Algorithm for Total Variation Minimization and Applications", Journal of Mathematical
    Imaging and Vision 20, 2004; as a defence C. Guo et al., ICLR 2018, arXiv 1711.00117, without their random pixels.
    For each colour f,

        u = argmin_u 1/2 ||u - f||^2 + weight TV(u)        TV(u) = sum_ij |(Du)_ij|, D: differences to the next pixel
          = f - weight div p
        p <- (p + t g) / (1 + t |g|),   g = D(div p - f / weight),   t = 1/4, from p = 0

    Args:
        weight: of the total variation, above 0; in [0, 1] pixels.
        steps: of the algorithm, 1 or more.

    Raises:
        ModelError: an argument is out of range.

    Example:
        >>> spot = torch.zeros(3, 1, 2)
        >>> spot[:, 0, 1] = 1
        >>> TotalVariation(0.25, 200).views(spot, torch.Generator())[0].image[0]    # both move by the weight
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, weight: float = 0.1, steps: int = 100) -> None:
        super().__init__()
        if not 0 < weight < math.inf:
            raise ModelError(f"TotalVariation: weight={weight} must be above 0")
        if steps < 1:
            raise ModelError(f"TotalVariation: steps={steps} must be 1 or more")
        self.weight, self.steps = weight, steps

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        dual = image.new_zeros((2, *image.shape))
        for _ in range(self.steps):
            ascent = gradient(divergence(dual) - image / self.weight)
            dual = (dual + _STEP * ascent) / (1 + _STEP * ascent.norm(dim=0))
        return [DefendedView((image - self.weight * divergence(dual)).clamp(0, 1))]


def gradient(images: Tensor) -> Tensor:
    """Differences of each pixel to the one below and to the right of it, 0 at the border: (2, ..., H, W).

    Example:
        >>> gradient(torch.tensor([[1.0, 3.0], [4.0, 8.0]])).tolist()
        [[[3.0, 5.0], [0.0, 0.0]], [[2.0, 0.0], [4.0, 0.0]]]
    """
    found = images.new_zeros((2, *images.shape))
    found[0, ..., :-1, :] = images.diff(dim=-2)
    found[1, ..., :, :-1] = images.diff(dim=-1)
    return found


def divergence(dual: Tensor) -> Tensor:
    """The negative adjoint of `gradient`: <div p, u> = -<p, Du> for all u. From (2, ..., H, W) to (..., H, W).

    Example:
        >>> divergence(torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[3.0, 9.0], [4.0, 9.0]]])).tolist()
        [[4.0, -1.0], [3.0, -6.0]]
    """
    down, right = dual[0, ..., :-1, :], dual[1, ..., :, :-1]
    found = torch.zeros_like(dual[0])
    found[..., :-1, :] += down
    found[..., 1:, :] -= down
    found[..., :, :-1] += right
    found[..., :, 1:] -= right
    return found
