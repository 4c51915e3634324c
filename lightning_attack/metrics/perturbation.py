"""The size of perturbations."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.common.pixels import LEVELS


def perturbation_size(adversarial: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Distance of each image from its clean image in the usual norms; (B,) float64 on the CPU.

        linf = largest |adversarial - clean|, in levels of 1/255, rounded where it is within 1e-3 of a whole number
        l2   = ||adversarial - clean||_2, of [0, 1] pixels
        psnr = 10 log10(1 / MSE), in dB; infinite where an image was not changed

    Args:
        adversarial: (B, 3, H, W) in [0, 1].
        clean: the same.

    Example:
        >>> size = perturbation_size(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2))
        >>> {name: round(value.item(), 4) for name, value in size.items()}    # 25.5/255, 0.1 sqrt(12), 20 dB
        {'linf': 25.5, 'l2': 0.3464, 'psnr': 20.0}
    """
    sizes: dict[str, list[Tensor]] = {"linf": [], "l2": [], "psnr": []}
    if adversarial.device.type == "mps":  # it has no float64
        adversarial, clean = adversarial.cpu(), clean.cpu()
    # Image by image, so that the sums are those of one image in every batch.
    for attacked, before in zip(adversarial, clean, strict=True):
        delta = (attacked.double() - before.double()).flatten()
        levels = delta.abs().amax() * LEVELS
        # float32 images are on the 8-bit grid but for about 1e-5 levels; a thousandth is no violation of a budget.
        sizes["linf"].append(torch.where((levels - levels.round()).abs() < 1e-3, levels.round(), levels))
        sizes["l2"].append(delta.norm())
        sizes["psnr"].append(-10 * delta.square().mean().log10())
    return {name: torch.stack(values).cpu() if values else torch.zeros(0).double() for name, values in sizes.items()}
