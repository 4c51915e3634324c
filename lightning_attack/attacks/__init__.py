"""Adversarial attacks on segmentation networks: four kinds of parts, one loop, presets. Torch only."""

from lightning_attack.attacks.affine import RandomAffine
from lightning_attack.attacks.alma_prox import ALMAProx
from lightning_attack.attacks.apgd import APGD
from lightning_attack.attacks.base import Attack, NoAttack
from lightning_attack.attacks.copies import Admix, ScaleCopies, SpectrumSimulation, StraightThrough
from lightning_attack.attacks.dag import DAG
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.feature_objectives import FSPGD, RPPGD
from lightning_attack.attacks.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.gradient_transforms import (
    GradientTransform,
    Momentum,
    Nesterov,
    PreGradient,
    TranslationInvariance,
)
from lightning_attack.attacks.input_transforms import InputDiversity, InputTransform
from lightning_attack.attacks.iterative import IterativeAttack
from lightning_attack.attacks.losses import JensenShannon, LogitsRatio, MaskedSpherical, Tsallis
from lightning_attack.attacks.masked_losses import (
    BalancedMaskedCrossEntropy,
    EroSeg,
    MaskedCrossEntropy,
)
from lightning_attack.attacks.norms import L2, Linf, Norm
from lightning_attack.attacks.objectives import CosPGD, CrossEntropy, Objective, SegPGD
from lightning_attack.attacks.patch_wise import PatchWise
from lightning_attack.attacks.peer import Peer
from lightning_attack.attacks.per_window import PerWindow
from lightning_attack.attacks.presets import *  # noqa: F403
from lightning_attack.attacks.presets import PRESETS
from lightning_attack.attacks.presets import __all__ as _presets
from lightning_attack.attacks.random import image_seeds
from lightning_attack.attacks.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.sampling import EnhancedSampling, PenalizedGradientNorm, VarianceTuning
from lightning_attack.attacks.svre import SVRE
from lightning_attack.attacks.transegpgd import FoolAllPixels, Staged, Switch, TransferablePixels
from lightning_attack.attacks.until_fooled import UntilFooled
from lightning_attack.attacks.worst_case import WorstCase

__all__ = [
    "APGD",
    "DAG",
    "FSPGD",
    "L2",
    "PRESETS",
    "RPPGD",
    "SVRE",
    "ALMAProx",
    "Admix",
    "Attack",
    "AttackError",
    "BalancedMaskedCrossEntropy",
    "BlockShuffle",
    "CosPGD",
    "CrossEntropy",
    "DynamicScaling",
    "EnhancedSampling",
    "EroSeg",
    "FoolAllPixels",
    "GradientTransform",
    "InputDiversity",
    "InputTransform",
    "IterativeAttack",
    "JensenShannon",
    "Linf",
    "LocalRegions",
    "LogitsRatio",
    "MaskedCrossEntropy",
    "MaskedSpherical",
    "Momentum",
    "Nesterov",
    "NoAttack",
    "Norm",
    "Objective",
    "PatchWise",
    "Peer",
    "PenalizedGradientNorm",
    "PerWindow",
    "PreGradient",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "ScaleCopies",
    "SegPGD",
    "SpectrumSimulation",
    "Staged",
    "StraightThrough",
    "Switch",
    "TransferablePixels",
    "TranslationInvariance",
    "Tsallis",
    "UntilFooled",
    "VarianceTuning",
    "WorstCase",
    "image_seeds",
    *_presets,
]
