"""Attacks that differ in what they maximise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CosPGD, CrossEntropy, SegPGD
from lightning_attack.attacks.objectives.features import FSPGD, RPPGD
from lightning_attack.attacks.objectives.losses import JensenShannon, Tsallis
from lightning_attack.attacks.objectives.masked import EroSeg, MaskedCrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build

__all__ = [
    "bim", "cospgd", "eroseg", "fgsm", "fspgd", "js_pgd", "masked_pgd", "pgd", "rp_pgd", "segpgd", "tsallis_pgd",
]  # fmt: skip


def fgsm(**settings: Unpack[Settings]) -> IterativeAttack:
    """FGSM: one step of the whole radius along the sign of the gradient.

        x_adv = clip(x + eps sign(g))               g: gradient of the cross-entropy at x;   clip: to [0, 1]

    Source: I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015,
    arXiv 1412.6572.

    Here the default of `steps` is 1, and so that of `step_size` is `eps`.

    Example:
        >>> fgsm(eps="4/255").steps
        1
    """
    return build("fgsm", CrossEntropy(), settings, {"steps": 1})


def bim(**settings: Unpack[Settings]) -> IterativeAttack:
    """BIM (I-FGSM): steps from the clean image.

        x_0 = x,   x_{t+1} = clip(x_t + step_size sign(g_t))

    with the gradient g_t of the cross-entropy at x_t; clip is to the ball around x and to [0, 1].

    Source: A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical world", 2016, arXiv 1607.02533
    (there: step 1/255).
    """
    return build("bim", CrossEntropy(), settings)


def pgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """PGD: steps from a random point of the ball.

        x_0 = clip(x + U(-eps, eps)),   x_{t+1} = clip(x_t + step_size sign(g_t))

    with the gradient g_t of the cross-entropy at x_t; clip is to the ball around x and to [0, 1].

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
    arXiv 1706.06083 (common ports: eps 8/255, step 2/255, 10 steps; segmentation papers: step 0.01, 20 to 100 steps).

    Example:
        >>> pgd(eps="8/255", steps=40).random_start
        True
    """
    return build("pgd", CrossEntropy(), settings, {"random_start": True})


def masked_pgd(*, temperature: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """PGD on the still correct pixels only, see `MaskedCrossEntropy`: DAG's idea inside a ball.

    Source: the baseline "DAG" of J. Gu et al., ECCV 2022, arXiv 2207.12391, and the masked cross-entropy of F. Croce,
    N. Singh, M. Hein, ECCV 2024, arXiv 2306.12941.
    """
    return build("masked_pgd", MaskedCrossEntropy(temperature), settings, {"random_start": True})


def segpgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """SegPGD: weight from the still correct pixels to equal ones, see `SegPGD`.

    Source: J. Gu et al., ECCV 2022, arXiv 2207.12391 (there: eps 0.03, step 0.01, random start, 3 to 100 steps).
    """
    return build("segpgd", SegPGD(), settings, {"random_start": True})


def cospgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """CosPGD: weight by the cosine of prediction and label, see `CosPGD`.

    Source: S. Agnihotri et al., ICML 2024, arXiv 2302.02213 (there: eps about 8/255, step 0.01, random start).
    """
    return build("cospgd", CosPGD(), settings, {"random_start": True})


def js_pgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """PGD on the Jensen-Shannon divergence of prediction and label, see `JensenShannon`.

    Source: F. Croce, N. Singh, M. Hein, ECCV 2024, arXiv 2306.12941 (there inside APGD, see `sea`).
    """
    return build("js_pgd", JensenShannon(), settings, {"random_start": True})


def tsallis_pgd(*, q_start: float = -2.0, q_end: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """PGD on the Tsallis loss, which goes from the correct pixels to all as q goes to 1, see `Tsallis`.

    Source: 2026, arXiv 2605.03405 (there inside APGD of 300 steps with a falling radius: `apgd` with the objective
    `Tsallis` and SEA's radii).
    """
    return build("tsallis_pgd", Tsallis(q_start, q_end), settings, {"random_start": True})


def eroseg(
    *,
    tau: float = 0.8,
    growth: float = 0.8,
    foreground: float = 0.7,
    background: float = 0.3,
    background_class: int | None = 0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """EroSeg: first the correct pixels of low confidence, then more and more of the others, see `EroSeg`.

    Source: Y. Song et al., 2026, arXiv 2601.14950 (there: eps 8/255, step 0.001 as printed, 10 steps).
    """
    objective = EroSeg(tau, growth, foreground, background, background_class)
    return build("eroseg", objective, settings, {"random_start": True})


def rp_pgd(
    *, prototypes: float = 0.25, layers: Sequence[str] = ("auto",), **settings: Unpack[Settings]
) -> IterativeAttack:
    """RP-PGD: regions by how pixels fared so far, and prototypes of the classes in feature space, see `RPPGD`.

    Source: AAAI 2025 (there: eps 0.03, step 0.01, random start, up to 100 steps).
    """
    return build("rp_pgd", RPPGD(prototypes, layers), settings, {"random_start": True})


def fspgd(*, layers: Sequence[str] = ("auto",), cosine: float = 0.5, **settings: Unpack[Settings]) -> IterativeAttack:
    """FSPGD: break the similarity of features between places, then with the clean features, see `FSPGD`.

    Source: 2025, arXiv 2502.01262 (there: eps 0.03, step 0.01, 20 steps, random start, the layer `layer3_2` of a
    dilated ResNet). It uses no labels and cannot be targeted.
    """
    return build("fspgd", FSPGD(layers, cosine), settings, {"random_start": True})
