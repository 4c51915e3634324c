"""`PatchWise`: large steps whose overflow is spread over the neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import Budget, GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.iterative import IterativeAttack, Step
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels, parse_pixels
from lightning_attack.engine.autocast import full_precision


class PatchWise(IterativeAttack):
    """PI-FGSM, patch-wise: amplify the step, and give what does not fit into the ball to the neighbouring pixels.

    Source: L. Gao, Q. Zhang, J. Song, X. Liu, H. T. Shen, "Patch-wise Attack for Fooling Deep Neural Network", ECCV
    2020, arXiv 2007.06765. Not the pre-gradient attack that is also called PI-FGSM (`PreGradient`).

        a <- a + B * step_size * sign(g)                          sum of all moves so far; 0 at first
        C  = max(|a| - eps, 0) * sign(a)                          its part outside of the ball
        P  = gamma * sign(W * C)                                  W = mean of the k x k neighbours without the centre
        a <- a + P
        delta <- clip(delta + B * step_size * sign(g) + P, -eps, eps),  then to [0, 1]

    The paper's steps are eps / 10 and there are 10 of them, so an amplified step is eps. With other sizes choose
    `amplification` so that `amplification * step_size` stays near eps: beyond 2 eps every step leaps from border to
    border.

    Departs from the released code: where neighbours cancel, the sign of W * C is 0, and not that of a rounding error,
    which depends on the order of summation. Outside of the region P is 0.

    Args:
        objective: what to maximise; the paper's is `CrossEntropy`.
        norm: an `Linf`.
        steps: number of steps, 1 or more; the paper's is 10.
        step_size: length of a step before it is amplified, above 0: a number or a fraction such as `2/255`.
        amplification: B, above 0; the paper's is 10. Close to 1 and with a small gamma it is BIM.
        gamma: size of P, of [0, 1] pixels, above 0. None = eps, which is what the released `gamma = B * step_size` is
            with the released step of eps / 10.
        kernel_size: k, an odd number, 3 or more. The paper's is 3 for normally trained networks, 7 for defended ones.
        random_start: start at a random point of the ball; not in the paper.
        input_transforms: applied in order to the image, as in the paper's DPI-FGSM.
        gradient_transforms: the first is next to the model, as in its MPI- and TPI-FGSM. None that scales steps.
        name: name in tables and folders.
        source_transforms: as in `IterativeAttack`.

    Raises:
        ValueError: as `IterativeAttack`; or a norm other than L-inf, an amplification of 0 or below, or a kernel size
            that is even or below 3.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> attack = PatchWise(CrossEntropy(), Linf(0.25), steps=2, step_size=0.0625, amplification=4.0)
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)        # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 5), 0.5), torch.tensor([[[0, 255, 255, 255, 255]]])
        >>> attack(model, images, labels)[0, 0]       # the second step's overflow goes to the neighbour, ignored or not
        tensor([[0.2500, 0.2500, 0.5000, 0.5000, 0.5000]])
    """

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        amplification: float = 10.0,
        gamma: Pixels | None = None,
        kernel_size: int = 3,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "pi_fgsm",
        source_transforms: Sequence[SourceTransform] | None = None,
    ) -> None:
        super().__init__(
            objective,
            norm,
            steps,
            step_size,
            random_start,
            input_transforms,
            gradient_transforms,
            name=name,
            source_transforms=source_transforms,
        )
        if norm.name != "linf":
            raise ValueError(
                f"norm='{norm.name}': the patch-wise attack is for linf; it spreads what each value's own bound cuts "
                "off, and in other norms values have no bound of their own"
            )
        for transform in self.gradient_transforms:
            if transform.scales:
                raise ValueError(
                    f"{type(transform).__name__} sets the lengths of steps, and {name} has its own: all values move by "
                    "amplification * step_size, and what leaves the ball goes to the neighbours"
                )
        if not 0 < amplification < float("inf"):  # NaN too
            raise ValueError(f"amplification={amplification}: must be a number above 0; the paper's is 10")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: must be odd and 3 or more")
        self.amplification, self.kernel_size = amplification, kernel_size
        self.gamma = norm.eps if gamma is None else parse_pixels(gamma, "gamma")

    def stepper(self, problem: Problem, budget: Budget) -> Step:
        images = problem.images
        wanted = torch.zeros_like(images)
        kernel = self._kernel(images)

        def step(adversarial: Tensor, direction: Tensor) -> Tensor:
            nonlocal wanted
            move = self.amplification * self.step_size * self.norm.direction(direction)
            wanted = wanted + move
            overflow = wanted - self.norm.project(wanted)
            with full_precision(overflow):
                around = F.conv2d(overflow, kernel, padding=self.kernel_size // 2, groups=images.shape[1])
            # Far below a level of 1/255 and far above the rounding of sums of equal numbers.
            spread = self.gamma * around.sign() * (around.abs() > 1e-5)
            spread = problem.inside_only(spread)
            wanted = wanted + spread
            delta = self.norm.project(adversarial + move + spread - images)
            return (images + delta).clamp(0, 1)

        return step

    def _kernel(self, images: Tensor) -> Tensor:
        """W for each colour, (3, 1, k, k)."""
        size, colours = self.kernel_size, images.shape[1]
        kernel = images.new_full((colours, 1, size, size), 1 / (size**2 - 1))
        kernel[:, :, size // 2, size // 2] = 0
        return kernel
