"""Integrated gradients: the gradient on the way from a baseline to the image, times the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count
from lightning_attack.attacks.random import Draws
from lightning_attack.common.pixels import Pixels, zero_or_more


class IntegratedGradients(InputTransform):
    """Show the image on its way from a baseline, and multiply the gradient of each value by the length of its way.

    Sources: Y. Huang, A. W.-K. Kong, "Transferable Adversarial Attack based on Integrated Gradients", ICLR 2022, arXiv
    2205.13152 (TAIG); W. Ma, Y. Li, X. Jia, W. Xu, "Transferable Adversarial Attack for Both Vision Transformers and
    Convolutional Networks via Momentum Integrated Gradients", ICCV 2023 (MIG); Y. Ren et al., "Improving Integrated
    Gradient-based Transferable Adversarial Examples by Refining the Integration Path", AAAI 2025, arXiv 2412.18844
    (MUMODIG, with quantized baselines).

        views  b + (i + position) / points * (x - b) + v,   i = 0 .. points - 1;   gradient (x - b) * that of the view
        v:          0, or with `noise` U(-noise, noise) in each value, anew for each view: TAIG's random path
        black:      b = 0
        quantized:  `regions` - 1 numbers, uniform between the smallest and the largest value of a colour, cut its range
                    into regions; b = the lower end of the region of x. So b <= x, and no path turns back.

    b is constant for the gradient. Last among input transforms, it integrates in the geometry of what the others show;
    then the result is moved back. The released code of MUMODIG moves the gradient back first, and multiplies by the way
    of the moved image, which belongs to other places. That of TAIG-R multiplies by the way between the two noisy ends;
    here, as in the formula, a value of 0 has no way from black and is never changed.

    Args:
        baseline: `black` (TAIG, MIG) or `quantized` (MUMODIG).
        points: views for each baseline, 1 or more; MIG has 20, MUMODIG 1.
        position: of a point in its part of the way, in (0, 1]; MIG has 1, MUMODIG 0.65.
        baselines: number of baselines, 1 or more; black ones are alike, so there is 1.
        regions: of the quantization, 2 or more; MUMODIG has 2.
        noise: of [0, 1] pixels, 0 or more; a number or a fraction. TAIG-R has its budget, 8/255 there.

    Raises:
        ValueError: an argument is out of range, or several black baselines.

    Example:
        >>> image = torch.full((1, 1, 1, 1), 0.8, requires_grad=True)
        >>> half, whole = IntegratedGradients("black", points=2)(image, Draws([0]))
        >>> round(half.images.item(), 4), round(torch.autograd.grad(half.images, image)[0].item(), 4)
        (0.4, 0.8)
    """

    noise = 0.0

    def __init__(
        self,
        baseline: Literal["black", "quantized"] = "quantized",
        points: int = 1,
        position: float = 1.0,
        baselines: int = 1,
        regions: int = 2,
        noise: Pixels = 0,
    ) -> None:
        if baseline not in ("black", "quantized"):
            raise ValueError(f"baseline='{baseline}': must be black or quantized")
        if not 0 < position <= 1:  # NaN too
            raise ValueError(f"position={position}: must be above 0, at most 1")
        if regions < 2:
            raise ValueError(f"regions={regions}: must be 2 or more; with 1 all values would have one baseline")
        self.points, self.baselines = check_count("points", points), check_count("baselines", baselines)
        if baseline == "black" and baselines > 1:
            raise ValueError(f"baselines={baselines}: there is only one black image; use baseline=quantized")
        self.baseline, self.position, self.regions = baseline, position, regions
        size = zero_or_more(noise, "noise")
        if size:  # 0 is not noted: settings stay those of earlier runs
            self.noise = size

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.baselines):
            values = images.detach()
            base = torch.zeros_like(values) if self.baseline == "black" else self.quantized(values, draws)
            way = values - base
            for point in range(self.points):
                on_way = base + (point + self.position) / self.points * way
                if self.noise:
                    on_way = on_way + draws.uniform("path", images.shape[1:], -self.noise, self.noise).to(images.dtype)
                # The bracket is 0, and its gradient is 1.
                yield View(on_way + way * (images - values))

    def quantized(self, images: Tensor, draws: Draws) -> Tensor:
        """The lower end of each value's region, (B, 3, H, W)."""
        flat = images.flatten(2)
        low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
        cuts = draws.uniform("quantization", (images.shape[1], self.regions - 1)).to(images.dtype)
        ends = torch.cat([low, (low + cuts * (high - low)).minimum(high)], dim=2).sort(dim=2).values.contiguous()
        region = torch.searchsorted(ends, flat.contiguous(), right=True) - 1
        return ends.gather(2, region).view_as(images)
