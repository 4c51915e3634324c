"""The candidates of `search_transfer.py`: attacks by name, each for a number of backward passes per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks import (
    Attack,
    BalancedCrossEntropy,
    BlockShuffle,
    BlockStretch,
    CrossEntropy,
    DiversifiedFeatures,
    Draws,
    FeatureNoise,
    GradientTransform,
    InputDiversity,
    InputTransform,
    IterativeAttack,
    LinearBackward,
    Linf,
    Momentum,
    Nesterov,
    Objective,
    PerturbationDecay,
    PreGradient,
    RandomAffine,
    RandomChain,
    RandomColour,
    RandomFlip,
    RandomNoise,
    SmoothBackward,
    TranslationInvariance,
    View,
    bpa,
    linbp,
    mi_fgsm,
    sgm,
    ssa,
    transegpgd_best,
    transegpgd_mi_di_ti,
    transfer_best,
)


class Warp(InputTransform):
    """`RandomAffine` with stretch, shear, any range of zooms, and a smooth random displacement after DeCowA."""

    spatial = partial = True

    def __init__(
        self, zoom: tuple[float, float] = (0.65, 1.35), shear: float = 0.0, bend: float = 0.0, border: str = "zeros"
    ) -> None:
        self.zoom, self.shear, self.bend, self.border = zoom, shear, bend, border

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        batch, _, height, width = images.shape
        angle, zoom, right, down, stretch, shear = (
            2 * draws.uniform(f"warp {what}") - 1 for what in ("angle", "zoom", "right", "down", "stretch", "shear")
        )
        angle, size = angle * math.radians(10), self.zoom[0] + (zoom + 1) / 2 * (self.zoom[1] - self.zoom[0])
        ratio, zero = torch.exp(stretch * math.log(1 + self.shear)), torch.zeros_like(size)
        turn = _matrices(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
        there = turn @ _matrices(size * ratio, self.shear * shear, zero, size / ratio)
        back, shift = torch.linalg.inv(there), torch.stack([right, down], -1) * 0.2
        shape = [batch, 1, height, width]
        identity = F.affine_grid(torch.eye(2, 3).expand(batch, -1, -1), shape, align_corners=False)
        to_image = torch.einsum("bij,bhwj->bhwi", back, identity - shift[:, None, None])
        to_view = torch.einsum("bij,bhwj->bhwi", there, identity) + shift[:, None, None]
        if self.bend:
            coarse = (draws.uniform("warp bend", (2, 4, 4)) * 2 - 1) * self.bend / 2
            field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
            to_image = to_image + field.movedim(1, -1)
            for _ in range(8):  # the place p with to_image(p) = here, by iteration
                moved = F.grid_sample(field, to_view, padding_mode="border", align_corners=False).movedim(1, -1)
                to_view = torch.einsum("bij,bhwj->bhwi", there, identity - moved) + shift[:, None, None]
        ones = torch.ones_like(images[:, :1])
        around = F.grid_sample(ones, to_image, padding_mode="zeros", align_corners=False) < 0.99

        def undo(logits: Tensor) -> Tensor:
            return F.grid_sample(logits.masked_fill(around, 0), to_view, padding_mode="zeros", align_corners=False)

        yield View(F.grid_sample(images, to_image, padding_mode=self.border, align_corners=False), undo)


class Repeat(InputTransform):
    """The same image several times, so that what follows shows as many views of it in one step."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.count):
            yield View(images.clone())


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def recipe(
    passes: int,
    objective: Objective | None = None,
    inputs: Sequence[InputTransform] | None = None,
    kernel: int = 5,
    decay: float = 1.0,
    step_size: Any = 0.01,
    **settings: Any,
) -> IterativeAttack:
    """The recipe that the search began with (cross-entropy at temperature 3, MI, TI 5, affine views), with changes."""
    return IterativeAttack(
        objective or CrossEntropy(3.0),
        Linf("8/255"),
        passes,
        step_size,
        True,
        [RandomAffine(10.0, 0.1, 0.35)] if inputs is None else inputs,
        [TranslationInvariance(kernel), Momentum(decay)],
        **settings,
    )


CHANGES = ("flip", "balanced", "bend", "colour", "step2", "ti7", "temp2", "shear", "cosine", "mirror", "enlarge")
_ROW = (1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0)
DESIGN = [[_ROW[(place - run) % 11] for place in range(11)] for run in range(11)] + [[0] * 11]
"""Plackett and Burman's design of twelve runs: whether a run has each of the changes."""


def changed(passes: int, names: Sequence[str]) -> IterativeAttack:
    """The recipe with some of the changes of the design."""
    has = {change: change in names for change in CHANGES}
    warp = Warp(
        (0.8, 1.6) if has["enlarge"] else (0.65, 1.35),
        0.2 * has["shear"],
        0.3 * has["bend"],
        "reflection" if has["mirror"] else "zeros",
    )
    temperature = 2.0 if has["temp2"] else 3.0
    return recipe(
        passes,
        BalancedCrossEntropy(0.5, temperature) if has["balanced"] else CrossEntropy(temperature),
        [RandomFlip()] * has["flip"] + [RandomColour()] * has["colour"] + [warp],
        7 if has["ti7"] else 5,
        step_size=0.02 if has["step2"] else 0.01,
        step_schedule="cosine" if has["cosine"] else "constant",
    )


BASE = ("balanced", "colour", "step2", "shear")
"""The changes that helped; the second design changes what is left around them."""
MORE = ("shrink", "colours", "step_eps", "ti3", "temp4.5", "balance1", "slant")
_LEVELS = [(run & 1, run >> 1 & 1, run >> 2 & 1) for run in range(8)]
SECOND = [[a, b, c, int(a == b), int(a == c), int(b == c), (a + b + c) % 2] for a, b, c in _LEVELS]
"""A fractional factorial design of eight runs for seven further changes."""


def further(passes: int, names: Sequence[str]) -> IterativeAttack:
    """The recipe with the changes that helped, and some of the further ones."""
    has = {change: change in names for change in MORE}
    warp = Warp((0.5, 1.2) if has["shrink"] else (0.65, 1.35), 0.4 if has["slant"] else 0.2)
    objective = BalancedCrossEntropy(1.0 if has["balance1"] else 0.5, 4.5 if has["temp4.5"] else 3.0)
    colour = RandomColour(1.0, 0.5, 0.2) if has["colours"] else RandomColour()
    kernel, step_size = 3 if has["ti3"] else 5, "8/255" if has["step_eps"] else 0.02
    return recipe(passes, objective, [colour, warp], kernel, step_size=step_size)


def _made(changes: Sequence[str], levels: Sequence[int]) -> list[str]:
    return [change for change, level in zip(changes, levels, strict=True) if level]


def best(passes: int, **settings: Any) -> IterativeAttack:
    """`transfer_best` as it was before it had smooth slopes, with other settings."""
    was = {"smooth_slopes": 0.0, "pull": 0.8 if passes >= 100 else 0.5, "skip_gamma": 0.5}
    return transfer_best(**{"steps": passes, **was, **settings})


def ahead(passes: int, momentum: GradientTransform) -> IterativeAttack:
    """The same with gradients taken one step ahead, by what takes the place of `Momentum`."""
    attack = best(passes)
    attack.gradient_transforms[-1] = momentum
    return attack


def before(passes: int, **settings: Any) -> IterativeAttack:
    """`transfer_best` as it was before clean features were mixed in, with other settings."""
    return best(passes, **{"random_start": True, "scale": (0.65, 1.6), "feature_mix": 0.0, "pull": 0.0, **settings})


NARROW: dict[str, Any] = {"scale": (0.75, 1.6)}
FIXED: dict[str, Any] = {"random_start": False}
MIXED: dict[str, Any] = {"feature_mix": 0.4}
AROUND: dict[str, dict[str, Any]] = {
    "as_it_was": {},
    "zoom": NARROW,
    "fixed": FIXED,
    "fixed_zoom": FIXED | NARROW,
    "mixed_zoom": MIXED | NARROW,
    "fixed_mixed": FIXED | MIXED,
    "noise": {"input_transforms": [RandomNoise(8 / 255)]},
    "spectrum": {"input_transforms": ssa(copies=1).input_transforms},
    "diversified": {"source_transforms": [DiversifiedFeatures()]},
}
"""What was tried around `before`: zooms from 0.75, no random start, clean features mixed in, and others."""
FEATURES: dict[str, dict[str, Any]] = {
    "transfer_best_sign": {"finish": "sign"},
    "transfer_best_without_sgm": {"skip_gamma": 1.0},
    "transfer_best_without_mixup": {"feature_mix": 0.0},
    "transfer_best_without_both": {"skip_gamma": 1.0, "feature_mix": 0.0},
    "transfer_best_sgm3": {"skip_gamma": 0.3},
    **{f"transfer_best_prob{share}": {"feature_prob": share / 100} for share in (10, 25, 50, 100)},
}
"""`transfer_best` with other source transforms."""
SMOOTH: dict[str, dict[str, Any]] = {
    **{f"transfer_best_smooth{share}": {"smooth_slopes": share / 100} for share in (0, 25, 50, 75, 100)},
    **{
        f"transfer_best_smooth{share}_late": {"source_transforms": [SmoothBackward(share / 100, start=0.4)]}
        for share in (50, 100)
    },
    **{f"transfer_best_smooth50_pull{share}": {"smooth_slopes": 0.5, "pull": share / 100} for share in (0, 30)},
    "transfer_best_smooth50_prob10": {"smooth_slopes": 0.5, "feature_prob": 0.1},
    "transfer_best_smooth75_pull80": {"smooth_slopes": 0.75, "pull": 0.8},
    "transfer_best_smooth25_pull50": {"smooth_slopes": 0.25, "pull": 0.5},
    "transfer_best_smooth25_mix60": {"smooth_slopes": 0.25, "feature_mix": 0.6},
    "transfer_best_smooth25_power25": {"smooth_slopes": 0.25, "power": 0.25},
    "transfer_best_smooth25_cosine": {"smooth_slopes": 0.25, "step_schedule": "cosine"},
}
"""`transfer_best` with more or less smooth slopes, and other changes with them."""
GAMMAS: dict[str, dict[str, Any]] = {
    "transfer_best_sgm7": {"skip_gamma": 0.7},
    "transfer_best_sums": {"source_transforms": [SmoothBackward(0.5, start=0.0)]},
    "transfer_best_sums_smooth25": {"source_transforms": [SmoothBackward(0.25, start=0.0)]},
    "transfer_best_gamma70_smooth75": {"smooth_slopes": 0.75, "skip_gamma": 0.7},
    "transfer_best_gamma70_pull0": {"smooth_slopes": 0.5, "skip_gamma": 0.7, "pull": 0.0},
    **{f"transfer_best_gamma{share}": {"smooth_slopes": 0.5, "skip_gamma": share / 100} for share in (50, 70, 80, 100)},
}
"""Of ResNets: smooth slopes behind the sums of residual connections as well, and other gammas of SGM without these."""
ALONE: dict[str, Callable[..., Attack]] = {
    "mi_fgsm": mi_fgsm,
    "bpa": bpa,
    "bpa_sums": partial(bpa, behind_sums=True),
    "linbp": linbp,
    "linbp_sums": partial(linbp, behind_sums=True),
    "sgm": sgm,
    "sgm_gamma50": partial(sgm, gamma=0.5),
}
"""Of ResNets: source transforms with nothing but MI."""
NOW: dict[str, dict[str, Any]] = {
    "kernel3": {"kernel_size": 3},
    "kernel7": {"kernel_size": 7},
    "temperature2": {"temperature": 2.0},
    "temperature45": {"temperature": 4.5},
    "flip": {"input_transforms": [RandomFlip()]},
    "noise": {"input_transforms": [RandomNoise(8 / 255)]},
    "random": {"random_start": True},
    "colours": {"contrast": 0.5, "brightness": 0.2},
    "prob25": {"feature_prob": 0.25},
    "without_mixup": {"feature_mix": 0.0},
    "zooms_90": {"scale": (0.9, 1.6)},
    "zooms_200": {"scale": (0.75, 2.0)},
    "ilpd": {"source_transforms": [PerturbationDecay(0.7, 0.0)]},
    "stretch": {"input_transforms": [BlockStretch()]},
    "power0": {"power": 0.0},
    "power25": {"power": 0.25},
}
"""`transfer_best` as it is now, with other settings."""
BESIDE: dict[str, dict[str, Any]] = {
    "transfer_best_linear": {"source_transforms": [LinearBackward(0.5, rescale=False)]},
    "transfer_best_faug": {"source_transforms": [FeatureNoise(0.1, 0.3)]},
    "transfer_best_noise": {"input_transforms": [RandomNoise(8 / 255)]},
}
"""What was tried beside smooth slopes."""
FEW: dict[str, Any] = {"feature_prob": 0.1}
"""As few layers with clean features as 10 passes have: 100 passes had no more when these were tried."""
PULLS: dict[str, dict[str, Any]] = {
    "transfer_best_pull0": {"pull": 0.0, **FEW},
    "transfer_best_pull0_power25": {"pull": 0.0, "power": 0.25, **FEW},
    **{f"transfer_best_pull{share}": {"pull": share / 100, **FEW} for share in (30, 50, 80, 100)},
}
"""`transfer_best` with more or less of a pull to the largest other class."""
WIDE: dict[str, Any] = {"slant": 0.35, "degrees": 20.0, "scale": (0.6, 1.8), "contrast": 0.5, "brightness": 0.2}
NOISY: dict[str, Any] = {"input_transforms": [RandomNoise(8 / 255)]}
LONG: dict[str, dict[str, Any]] = {
    "transfer_best_pull50_decay90": {"pull": 0.5, "decay": 0.9},
    "transfer_best_pull50_steps001": {"pull": 0.5, "step_size": 0.001},
    "transfer_best_long_temperature6": {"temperature": 6.0},
    "transfer_best_long_smooth": {"power": 0.0, "kernel_size": 7, "skip_gamma": 0.3, "pull": 1.0},
    "transfer_best_long_wide": WIDE | NOISY | {"kernel_size": 7, "pull": 1.0},
    "transfer_best_long_varied": WIDE | NOISY | {"power": 0.0, "skip_gamma": 0.3},
    "transfer_best_long_power25": {"power": 0.25},
    "transfer_best_long_mix60": {"feature_mix": 0.6},
    "transfer_best_long_features": {"source_transforms": [FeatureNoise(0.3)]},
}
LONG = {name: settings | FEW for name, settings in LONG.items()}
"""What was tried with 100 passes besides."""

CANDIDATES: dict[str, Callable[[int], Attack]] = {
    "recipe": recipe,
    "mi_di": lambda passes: recipe(passes, CrossEntropy(), [InputDiversity(0.9, 0.7)], kernel=1),
    "transegpgd_mi_di_ti": lambda passes: transegpgd_mi_di_ti(steps=passes),
    "transfer_best": lambda passes: transfer_best(steps=passes),
    "transegpgd_best": lambda passes: transegpgd_best(steps=passes),
    "blocks": lambda passes: recipe(passes, inputs=[BlockShuffle(2), RandomAffine(10.0, 0.1, 0.35)]),
    "block_stretch": lambda passes: recipe(passes, inputs=[BlockStretch(), RandomAffine(10.0, 0.1, 0.35)]),
    "chain": lambda passes: recipe(
        passes,
        inputs=[RandomChain([RandomAffine(10.0, 0.1, 0.35), RandomFlip(1.0), BlockShuffle(2), BlockStretch()], 1, 4)],
    ),
    "sign": lambda passes: recipe(passes, finish="sign"),
    **{
        name: partial(best, **settings)
        for name, settings in (FEATURES | SMOOTH | GAMMAS | BESIDE | PULLS | LONG).items()
    },
    **{name: lambda passes, preset=preset: preset(steps=passes) for name, preset in ALONE.items()},
    **{
        f"transfer_best_now_{name}": lambda passes, settings=settings: transfer_best(steps=passes, **settings)
        for name, settings in NOW.items()
    },
    "transfer_best_ni": lambda passes: ahead(passes, Nesterov()),
    "transfer_best_pi": lambda passes: ahead(passes, PreGradient()),
    "transfer_best_ten_views": lambda passes: best(passes // 10, pull=0.5, input_transforms=[Repeat(10)]),
    **{
        f"zooms_{low}_{high}": partial(before, scale=(low, high))
        for low, high in ((0.5, 1.2), (0.5, 1.6), (0.65, 1.35), (0.8, 1.6), (1.0, 1.5), (1.0, 2.0))
    },
    **{f"steps_of_{size}": partial(before, step_size=size) for size in (0.002, 0.005, 0.01, 0.02)},
    "five_views": lambda passes: before(passes // 5, step_size=0.02, input_transforms=[Repeat(5)]),
    **{f"before_{name}": partial(before, **settings) for name, settings in AROUND.items()},
    **{change: lambda passes, change=change: changed(passes, [change]) for change in CHANGES},
    **{
        f"design{run}": lambda passes, levels=levels: changed(passes, _made(CHANGES, levels))
        for run, levels in enumerate(DESIGN)
    },
    **{
        f"second{run}": lambda passes, levels=levels: further(passes, _made(MORE, levels))
        for run, levels in enumerate(SECOND)
    },
}
