"""Gradient transforms that sample in the frequency domain."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.attacks.gradient_transforms.base import Budget, GradientFunction, GradientTransform
from lightning_attack.attacks.gradient_transforms.neighbours import cosine
from lightning_attack.attacks.gradient_transforms.sampling import check_radius, check_samples, noise
from lightning_attack.attacks.input_transforms.spectral import dct2, idct2


class FrequencyRelevance(GradientTransform):
    """FGSRA: mix the gradient with those of random neighbours whose frequencies were shaken.

    Source: X. Wang, Z. Jin, Z. Zhu, J. Zhang, H. Chen, "Improving Adversarial Transferability via Frequency-Guided
    Sample Relevance Attack", CIKM 2024, as a common port has it; with `Momentum` and `DecayIndicator` the FGSRA attack.

        x_i = T_i(x + U(-radius * eps, radius * eps)),     T_i(v) = IDCT(m_i * DCT(v)),     m_i ~ U(1 - rho, 1 + rho)
        g = gradient(x),     n = sum over samples of cos(x, x_i) * T_i(gradient(x_i)),     s = cos(g, n)
        returned: s * g + (1 - s) * n            s and cos(x, x_i) are of each image, m_i of each frequency and colour

    T_i is its own transpose, so T_i(gradient(x_i)) is the gradient at x through the change. n is a sum, not a mean as
    in `GradientRelevance`, so that many neighbours outweigh the point. Each step costs `samples` + 1 gradients.

    Args:
        samples: neighbours per step, 0 or more; the paper's is 20, 0 does nothing.
        radius: reach of the neighbours in each value, in eps, 0 or more; the paper's is 2.
        rho: largest relative change of a frequency, in [0, 1]; the paper's is 0.7.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> ascent = FrequencyRelevance(samples=2, radius=0.0, rho=0.0)(lambda x: x, Budget(0, 0, 1, Draws([0])))
        >>> ascent(torch.tensor([[[[3.0, 4.0]]]]))       # all neighbours are the point: s = 1
        tensor([[[[3., 4.]]]])
    """

    def __init__(self, samples: int = 20, radius: float = 2.0, rho: float = 0.7) -> None:
        if not 0 <= rho <= 1:  # NaN too
            raise ValueError(f"rho={rho}: must be between 0 and 1; the paper's is 0.7")
        self.samples, self.radius, self.rho = check_samples(samples, 0), check_radius(radius), rho

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        def fgsra(x: Tensor) -> Tensor:
            here = gradient(x)
            if not self.samples:
                return here
            around = torch.zeros_like(here)
            for _ in range(self.samples):
                near = x + noise("frequency relevance", x, budget, self.radius)
                masks = budget.draws.uniform("frequency mask", x.shape[1:], 1 - self.rho, 1 + self.rho).to(x.dtype)
                shaken = _shaken(near, masks)
                around = around + cosine(x, shaken) * _shaken(gradient(shaken), masks)
            likeness = cosine(here, around)
            return likeness * here + (1 - likeness) * around

        return fgsra


def _shaken(images: Tensor, masks: Tensor) -> Tensor:
    """Each frequency times its mask; image by image, for FFTs of a batch may round differently from those of one."""
    pairs = zip(images.split(1), masks.split(1), strict=True)
    return torch.cat([idct2(dct2(image) * mask).to(images.dtype) for image, mask in pairs])
