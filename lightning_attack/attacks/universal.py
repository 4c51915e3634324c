"""`UniversalPerturbation`: one perturbation for all images, from a file; and the file itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.base import Attack, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.to_device import to_device
from lightning_attack.common.atomic import atomic_write
from lightning_attack.common.pixels import Pixels, in_levels

FORMAT = "lightning-attack universal perturbation 1"
Spread = Literal["tile", "resize"]
"""How a perturbation gets the size of an image: repeated from the top left corner, or resized (bilinear)."""


@dataclass(frozen=True)
class Universal:
    """A perturbation for all images, and how it was made.

    Attributes:
        delta: (3, h, w), float32, in [-eps, eps].
        eps: its L-inf radius, of [0, 1] pixels.
        spread: how it gets the size of an image.
        about: how it was made, in plain values.
    """

    delta: Tensor
    eps: float
    spread: Spread
    about: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write it as one file, which appears when it is complete."""
        content = {"format": FORMAT, "delta": self.delta.detach().cpu().float(), "eps": self.eps}
        with atomic_write(path) as unfinished:
            torch.save(content | {"spread": self.spread, "about": dict(self.about)}, unfinished)

    @classmethod
    def load(cls, path: Path) -> Universal:
        """Read what `save` has written.

        Raises:
            AttackError: there is no such file, it is another one, or its values are not those of a perturbation.
        """
        if not path.is_file():
            raise AttackError(f"no file '{path}'; `lightning-attack universal` learns a perturbation and writes one")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch says of other files
            raise AttackError(f"'{path}' is no universal perturbation: {str(error).strip().splitlines()[0]}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise AttackError(f"'{path}' is no universal perturbation, as `lightning-attack universal` writes one")
        found = cls(content["delta"], float(content["eps"]), content["spread"], content["about"])
        if found.delta.ndim != 3 or len(found.delta) != 3 or not float(found.delta.abs().max()) <= found.eps + 1e-6:
            raise AttackError(
                f"'{path}' is damaged: {tuple(found.delta.shape)} values that should be within its budget"
            )
        return found


def spread_to(delta: Tensor, size: Sequence[int], spread: Spread) -> Tensor:
    """A perturbation (3, h, w) in the size of images, (3, H, W); differentiable.

    Example:
        >>> spread_to(torch.tensor([[[1.0, 2.0]]]), (2, 3), "tile")
        tensor([[[1., 2., 1.],
                 [1., 2., 1.]]])
        >>> spread_to(torch.tensor([[[1.0, 2.0]]]), (1, 4), "resize")
        tensor([[[1.0000, 1.2500, 1.7500, 2.0000]]])
    """
    height, width = size
    if spread == "resize":
        return F.interpolate(delta[None], (height, width), mode="bilinear", align_corners=False)[0]
    repeats = (1, -(-height // delta.shape[1]), -(-width // delta.shape[2]))
    return delta.repeat(repeats)[:, :height, :width]


def check_spread(spread: Spread) -> Spread:
    """The way to spread, if there is one of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if spread not in get_args(Spread):
        raise ValueError(f"spread='{spread}': must be one of {', '.join(get_args(Spread))}")
    return spread


class UniversalPerturbation(Attack):
    """Add one and the same perturbation to every image, read from a file that `lightning-attack universal` wrote.

    Source: S.-M. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard, "Universal adversarial perturbations", CVPR 2017,
    arXiv 1610.08401; for segmentation J. H. Metzen, M. C. Kumar, T. Brox, V. Fischer, ICCV 2017, arXiv 1704.05712,
    whose perturbations repeat themselves as tiles, as with `spread: tile`.

        x_adv = clamp(x + spread(delta), 0, 1)

    It costs no pass of any network, and uses neither labels nor the source. How it is learned: `UniversalTask`.

    Args:
        file: of the perturbation.
        eps: L-inf radius of the run, of [0, 1] pixels, above 0: a number or a fraction; the file's is at most that.
        spread: `tile` or `resize` in place of the file's own way to get the size of an image; null = the file's.
        name: name in tables and folders.

    Raises:
        ValueError: the file is none of a perturbation, its radius is larger than `eps`, or spread is unknown.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "stripes.pt"
        ...     Universal(torch.tensor([0.1, -0.1]).expand(3, 1, 2), 0.1, "tile", {}).save(file)
        ...     attack = UniversalPerturbation(str(file), eps=0.1)
        >>> attack(torch.nn.Identity(), torch.full((1, 3, 1, 3), 0.5), torch.zeros(1, 1, 3, dtype=torch.int64))[0, 0]
        tensor([[0.6000, 0.4000, 0.6000]])
    """

    _display_name = "Universal"
    _papers = ("moosavi2017universal", "metzen2017universal")
    targetable = False

    def __init__(self, file: str, eps: Pixels = "8/255", spread: Spread | None = None, name: str = "universal") -> None:
        super().__init__(name)
        self.norm = Linf(eps)
        found = Universal.load(Path(file))
        if found.eps > self.norm.eps * (1 + 1e-6):
            needed = in_levels(found.eps)
            raise AttackError(
                f"'{file}' holds a perturbation of eps={needed}, more than eps={in_levels(self.norm.eps)} of this run; "
                f"give eps={needed}, or learn one of a smaller radius"
            )
        self.file, self.spread = file, found.spread if spread is None else check_spread(spread)
        # A run that goes on with another perturbation under the same name is then another run.
        self.sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        self._delta = found.delta

    def perturb(self, problem: Problem) -> Tensor:
        return problem.inside(self.added(problem.images))

    def added(self, images: Tensor) -> Tensor:
        """The images (B, 3, H, W) with the perturbation, in [0, 1]."""
        delta = spread_to(to_device(self._delta, images.device).to(images.dtype), images.shape[-2:], self.spread)
        return (images + delta).clamp(0, 1)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.norm.quantize(images, adversarial)
