"""Adversarial attacks on segmentation networks: four kinds of parts, one loop, presets. Torch only."""

from lightning_attack.attacks.base import Attack, NoAttack
from lightning_attack.attacks.gradient_transforms import GradientTransform, Momentum, Nesterov, TranslationInvariance
from lightning_attack.attacks.input_transforms import InputDiversity, InputTransform
from lightning_attack.attacks.iterative import IterativeAttack
from lightning_attack.attacks.norms import L2, Linf, Norm
from lightning_attack.attacks.objectives import CosPGD, CrossEntropy, Objective, SegPGD
from lightning_attack.attacks.presets import (
    bim,
    cospgd,
    di_fgsm,
    fgsm,
    mi_fgsm,
    ni_fgsm,
    pgd,
    segpgd,
    ti_fgsm,
    transegpgd,
    transegpgd_mi,
    transegpgd_mi_di_ti,
)
from lightning_attack.attacks.random import image_seeds
from lightning_attack.attacks.transegpgd import FoolAllPixels, Staged, Switch, TransferablePixels

PRESETS = (
    fgsm,
    bim,
    pgd,
    segpgd,
    cospgd,
    transegpgd,
    mi_fgsm,
    ni_fgsm,
    di_fgsm,
    ti_fgsm,
    transegpgd_mi,
    transegpgd_mi_di_ti,
)
"""The attacks named after papers, as functions; tests, configurations and tables walk this list."""

__all__ = [
    "L2",
    "PRESETS",
    "Attack",
    "CosPGD",
    "CrossEntropy",
    "FoolAllPixels",
    "GradientTransform",
    "InputDiversity",
    "InputTransform",
    "IterativeAttack",
    "Linf",
    "Momentum",
    "Nesterov",
    "NoAttack",
    "Norm",
    "Objective",
    "SegPGD",
    "Staged",
    "Switch",
    "TransferablePixels",
    "TranslationInvariance",
    "bim",
    "cospgd",
    "di_fgsm",
    "fgsm",
    "image_seeds",
    "mi_fgsm",
    "ni_fgsm",
    "pgd",
    "segpgd",
    "ti_fgsm",
    "transegpgd",
    "transegpgd_mi",
    "transegpgd_mi_di_ti",
]
