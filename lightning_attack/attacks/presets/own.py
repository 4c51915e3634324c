"""Attacks with loops of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.loops.alma_prox import ALMAProx
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.objectives.base import CrossEntropy, Objective
from lightning_attack.attacks.objectives.losses import JensenShannon
from lightning_attack.attacks.objectives.masked import BalancedMaskedCrossEntropy, MaskedCrossEntropy
from lightning_attack.attacks.presets.published import published
from lightning_attack.attacks.presets.settings import Ball, Settings, build, check_known, make_ball
from lightning_attack.attacks.wrappers.worst_case import By, WorstCase
from lightning_attack.common.pixels import Pixels

__all__ = ["alma_prox", "apgd", "dag", "pi_fgsm", "sea", "svre"]


def pi_fgsm(
    *,
    amplification: float = 2.5,
    gamma: Pixels | None = None,
    kernel_size: int = 3,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """PI-FGSM, patch-wise: large steps whose overflow is spread over the neighbourhood, see `PatchWise`.

    Source: L. Gao et al., ECCV 2020, arXiv 2007.06765 (there: eps 16/255, step eps/10, 10 steps, amplification 10, so
    that an amplified step is eps). Here an amplified step is 0.8 eps by default: at 8/255, 2.5 times this project's
    step of 0.01. L-inf only.
    """
    return build(
        "pi_fgsm",
        CrossEntropy(),
        settings,
        kind=PatchWise,
        linf_step=lambda eps, _: 0.01 * (eps / (8 / 255)),
        amplification=amplification,
        gamma=gamma,
        kernel_size=kernel_size,
    )


def svre(
    *, inner_steps: int | None = None, decay: float = 1.0, order_seed: int = 0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """SVRE: momentum on an ensemble, with inner steps on single members of reduced variance, see `SVRE`.

    Source: Y. Xiong et al., CVPR 2022, arXiv 2111.10752 (there: eps 16/255, step eps/10, 10 steps, inner steps four
    times the number of members). The source must be an `Ensemble`.
    """
    return build(
        "svre", CrossEntropy(), settings, kind=SVRE, inner_steps=inner_steps, decay=decay, order_seed=order_seed
    )


def apgd(
    *,
    objective: Objective | None = None,
    radii: Sequence[float] = (1.0,),
    shares: Sequence[float] = (1.0,),
    **settings: Unpack[Ball],
) -> APGD:
    """APGD: PGD that finds its own step sizes and returns the best iterate, see `APGD`.

    Source: F. Croce, M. Hein, ICML 2020, arXiv 2003.01690 (there: 100 steps). It takes the keywords of `Ball`, not
    those of `Settings`: it finds its own step sizes, and transforms nothing.

    Args:
        objective: what to maximise, `CrossEntropy` by default.
        radii: radii of the balls that it goes through, in eps; see `APGD`.
        shares: their parts of the steps.
    """
    check_known("apgd", settings, Ball)
    attack = APGD(
        objective or CrossEntropy(),
        make_ball(settings),
        settings.get("steps", 20),
        settings.get("random_start", True),
        radii,
        shares,
        name=settings.get("name") or "apgd",
    )
    return published(attack, "apgd", settings.get("name"), settings.get("display_name"))


def sea(
    *,
    class_pixels: Sequence[float] | None = None,
    by: By = "accuracy",
    radii: Sequence[float] = (2.0, 1.5, 1.0),
    shares: Sequence[float] = (0.3, 0.3, 0.4),
    **settings: Unpack[Ball],
) -> WorstCase:
    """SEA: the worst of three APGD with falling radius, on masked, balanced masked and Jensen-Shannon losses.

    Source: F. Croce, N. D. Singh, M. Hein, ECCV 2024, arXiv 2306.12941; the three losses of the paper (the released
    code runs other ones). See `WorstCase`, `APGD`, `MaskedCrossEntropy`, `BalancedMaskedCrossEntropy`,
    `JensenShannon`. It takes the keywords of `Ball`.

    Args:
        class_pixels: pixels of each class in the training set, see `BalancedMaskedCrossEntropy`.
        by: how the worst is chosen, see `WorstCase`.
        radii: radii of the balls that each APGD goes through, in eps.
        shares: their parts of the steps.

    Here `steps` is for each of the three; its default is the paper's 300.
    """
    check_known("sea", settings, Ball)
    objectives = {
        "mce": MaskedCrossEntropy(),
        "mce_balanced": BalancedMaskedCrossEntropy(class_pixels),
        "js": JensenShannon(),
    }
    steps, random_start = settings.get("steps", 300), settings.get("random_start", True)
    attacks = [
        APGD(objective, make_ball(settings), steps, random_start, radii, shares, name=f"apgd_{loss}")
        for loss, objective in objectives.items()
    ]
    worst = WorstCase(attacks, by, name=settings.get("name") or "sea")
    return published(worst, "sea", settings.get("name"), settings.get("display_name"))


def alma_prox(
    *,
    steps: int = 500,
    threshold: float = 0.99,
    step_size: Pixels = 0.001,
    name: str | None = None,
    display_name: str | None = None,
) -> ALMAProx:
    """ALMA prox: the smallest L-inf change that fools 99 % of the pixels, see `ALMAProx`. It has no radius.

    Source: J. Rony, J.-C. Pesquet, I. Ben Ayed, CVPR 2023, arXiv 2206.07179. Score it with `model.quantize: false`:
    its changes may be smaller than half a level.
    """
    attack = ALMAProx(steps, threshold, step_size, name=name or "alma_prox")
    return published(attack, "alma_prox", name, display_name)


def dag(
    *,
    steps: int = 200,
    threshold: float = 0.99,
    step_size: Pixels = "0.5/255",
    name: str | None = None,
    display_name: str | None = None,
) -> DAG:
    """DAG: short steps on the pixels that are still correct until 99 % are fooled, see `DAG`. It has no radius.

    Source: C. Xie et al., ICCV 2017, arXiv 1703.08603.
    """
    return published(DAG(steps, step_size, threshold, name=name or "dag"), "dag", name, display_name)
