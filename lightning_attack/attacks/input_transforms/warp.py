"""Input transform that bends the image like a sheet of rubber, less where that would help the attack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, Warp, check_count, unmoved
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.to_device import to_device

NEWTON = 12
"""Steps in which the way back is found for few pixels; from some number on nothing changes."""


class ConstrainedWarp(InputTransform):
    """DeCowA: show the image bent at random, after a step of the bend against the attack.

    Source: Q. Lin et al., "Boosting Adversarial Transferability across Model Genus by Deformation-Constrained Warping",
    AAAI 2024, arXiv 2402.03951; details after a public port.

        view(p) = x(T(p)),   T thin-plate spline on a mesh of control points, in [-1, 1] of each side: T(c_j) = c_j +
                  xi_j, xi_j = 0 at the border, at inner points strength * U(-1/2, 1/2) for each coordinate and copy
        xi <- xi - rho * gradient of the loss per labelled pixel (which the attack raises) w.r.t. xi,  then the view

    The step keeps the bend from doing the attack's work; it costs a pass for each copy. With rho = 0 there is none.

    The logits are moved back along the inverse of T, which is found by Newton's method for each pixel. Pixels that T
    shows nowhere, or where it folds the image over, have no logits, nor have those at the border whose logits would be
    mixed with the logits of the surroundings. The released code, made for one label per image,
    leaves them where they are, as `undo=False` does. Departs from the port in one point: there T without a bend zooms
    in by half a pixel; here it shows the image itself.

    In `input_transforms` it is the last. It cannot be in a `RandomChain`.

    The paper's own arguments (of a public port): 3 points a side, strength 2, so that the centre moves by up to half of
    a side, rho 0.01, 20 copies.

    Args:
        points: control points of each side, 3 or more.
        strength: range of an inner point's move, 0 or more, where a side is 2 long; 0 is the image itself.
        rho: length of the step, 0 or more.
        copies: number of views, 1 or more.
        undo: whether the logits are moved back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.zeros(1, 1, 3, 3)
        >>> image[..., 1, 1] = 1.0
        >>> bent = Bend(3, (3, 3), torch.tensor([[0.5, 0.0]])).show(image)     # the centre shows what is right of it
        >>> [round(value, 3) for value in bent[0, 0, 1].tolist()]
        [0.0, 0.5, 0.0]
    """

    spatial = True
    partial = True

    def __init__(
        self, points: int = 3, strength: float = 2.0, rho: float = 0.01, copies: int = 1, undo: bool = True
    ) -> None:
        if not points >= 3:  # NaN too
            raise ValueError(f"points={points}: must be 3 or more; those at the border do not move")
        if not 0 <= strength < math.inf or not 0 <= rho < math.inf:
            raise ValueError(f"strength={strength}, rho={rho}: must be numbers, 0 or more")
        self.points, self.strength, self.rho = points, strength, rho
        self.copies, self.undo = check_count("copies", copies), undo

    @property
    def adapts(self) -> bool:
        return self.rho > 0

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        inner = self.points - 2
        kind = torch.promote_types(images.dtype, torch.float32)
        for _ in range(self.copies):
            moves = draws.uniform("warp", (inner * inner, 2), -self.strength / 2, self.strength / 2).to(kind)
            view = self.view(images, moves.requires_grad_(self.adapts))
            again = partial(self.view, images)
            yield View(view.images, view.undo, Warp(moves, self.rho, again)) if self.adapts else view

    def view(self, images: Tensor, moves: Tensor) -> View:
        """The images bent by moves of the inner points, (B, inner points, 2), in x and y."""
        bends = [Bend(self.points, images.shape[-2:], one) for one in moves]

        def show(batch: Tensor) -> Tensor:
            return torch.cat([bend.show(image) for bend, image in zip(bends, batch.split(1), strict=True)])

        def undo(logits: Tensor) -> Tensor:
            return torch.cat([bend.back(one) for bend, one in zip(bends, logits.split(1), strict=True)])

        return View(show(images), undo if self.undo else unmoved)


class Bend:
    """T of one image: p -> p + sum over the inner points of phi_j(p) xi_j, where phi_j is 1 at c_j and 0 at the others.

    Args:
        points: control points of each side.
        size: height and width of the image.
        moves: xi, (inner points, 2), in x and y.
    """

    def __init__(self, points: int, size: Sequence[int], moves: Tensor) -> None:
        self.points, self.size, self.moves = points, (size[-2], size[-1]), moves
        self._inverse: tuple[Tensor, Tensor] | None = None
        self._around: Tensor | None = None

    def show(self, image: Tensor) -> Tensor:
        """The image (1, C, H, W), bent."""
        places = self._pixels(self.size)
        phi, _ = self._spline(places, slopes=False)
        return _sampled(image, places + phi @ self.moves)

    def back(self, logits: Tensor) -> Tensor:
        """Logits of the bent image (1, C, H, W) where the image's pixels are; 0 where they are nowhere."""
        if self._inverse is None:
            self._inverse = self._search()
        if self._around is None:
            # Where the view shows what is black around the image, in part at least.
            with torch.no_grad():
                self._around = self.show(torch.ones_like(logits[:, :1])) < 0.99
        places, found = self._inverse
        return _sampled(logits.masked_fill(self._around, 0), places) * found

    def _search(self) -> tuple[Tensor, Tensor]:
        """Of each pixel the place p at which T(p) is the pixel, (H, W, 2), and whether there is one, (H, W)."""
        target, moves = self._pixels(self.size), self.moves.detach()
        # First for few pixels: T is smooth, so from what lies between their places two steps are enough.
        few = self._pixels(tuple(min(length, length // 8 + 2) for length in self.size))
        places = self._approach(few, few, moves, NEWTON).movedim(-1, 0)[None]
        places = F.interpolate(places, self.size, mode="bilinear", align_corners=True)[0].movedim(0, -1)
        places = self._approach(places, target, moves, 2)
        # One more step, with a gradient: how the place moves with xi.
        step, straight = self._newton(places, target, self.moves)
        pixel = 2 / max(*self.size, 2)
        found = (step.detach().norm(dim=-1) < pixel / 4) & straight & (places.abs() <= 1 + 1e-6).all(-1)
        return torch.where(found[..., None], places - step, 0), found

    def _approach(self, places: Tensor, target: Tensor, moves: Tensor, steps: int) -> Tensor:
        """Places after steps of Newton's method."""
        for _ in range(steps):
            step, _ = self._newton(places, target, moves)
            # Steps of a quarter of a side at most: far away the spline's slopes say little.
            places = places - step * (0.5 / step.norm(dim=-1, keepdim=True).clamp_min(0.5))
        return places

    def _newton(self, places: Tensor, target: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """J^-1 (T(p) - target), and whether T keeps left and right apart there; J carries no gradient."""
        phi, slopes = self._spline(places)
        miss = places + phi @ moves - target
        # J_ab = [a = b] + sum_j xi_ja d phi_j / d p_b
        jacobian = torch.einsum("...jb,ja->...ab", slopes, moves.detach())
        jacobian = jacobian + torch.eye(2, dtype=places.dtype, device=places.device)
        (a, b), (c, d) = jacobian[..., 0, :].unbind(-1), jacobian[..., 1, :].unbind(-1)
        area = a * d - b * c
        safe = torch.where(area.abs() < 1e-3, 1e-3, area)
        x, y = miss.unbind(-1)
        return torch.stack([d * x - b * y, a * y - c * x], -1) / safe[..., None], area > 1e-3

    def _pixels(self, size: Sequence[int]) -> Tensor:
        """Where the pixels of an image of some size are, (H, W, 2), from -1 to 1."""
        kind, device = self.moves.dtype, self.moves.device
        down, right = (
            torch.linspace(-1, 1, length, dtype=kind, device=device) if length > 1 else torch.zeros(1, device=device)
            for length in size
        )
        return torch.stack([right.expand(len(down), -1), down[:, None].expand(-1, len(right))], -1).to(kind)

    def _spline(self, places: Tensor, slopes: bool = True) -> tuple[Tensor, Tensor]:
        """Phi at places (..., 2), (..., inner points); and d phi / d p, (..., inner points, 2)."""
        control, weights = (to_device(part, places.device).to(places.dtype) for part in _coefficients(self.points))
        away = places[..., None, :] - control
        square = away.square().sum(-1).clamp_min(1e-18)
        log = square.log()
        basis = torch.cat([square * log, torch.ones_like(places[..., :1]), places], -1)
        if not slopes:
            return basis @ weights, places
        towards = 2 * away * (log + 1)[..., None]
        linear = weights[-2:].T.expand(*places.shape[:-1], -1, -1)
        return basis @ weights, torch.einsum("...ka,kj->...ja", towards, weights[:-3]) + linear


@lru_cache(maxsize=8)
def _coefficients(points: int) -> tuple[Tensor, Tensor]:
    """Control points (k, 2) in x and y, and for each inner one the spline that is 1 there, (k + 3, inner points).

    The spline is a sum of r^2 log r^2 of the distances from the k points, and of 1, x and y.
    """
    side = torch.linspace(-1, 1, points, dtype=torch.float64)
    control = torch.stack([side.expand(points, -1), side[:, None].expand(-1, points)], -1).reshape(-1, 2)
    square = (control[:, None] - control).square().sum(-1)
    count = len(control)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = torch.xlogy(square, square)
    system[:count, count:] = torch.cat([torch.ones(count, 1, dtype=torch.float64), control], 1)
    system[count:, :count] = system[:count, count:].T
    ones = torch.eye(count + 3, count, dtype=torch.float64)
    inside = (control.abs() < 1 - 1e-9).all(1)
    return control, torch.linalg.solve(system, ones)[:, inside]


def _sampled(image: Tensor, places: Tensor) -> Tensor:
    """The image at places (H, W, 2), bilinear; black outside."""
    grid = places[None].expand(len(image), -1, -1, -1)
    return F.grid_sample(image.to(grid.dtype), grid, align_corners=True).to(image.dtype)
