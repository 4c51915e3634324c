"""Objectives: what an attack makes larger, from predictions and labels to one loss per image."""

from lightning_attack.attacks.objectives.base import (
    CosPGD,
    CrossEntropy,
    Moment,
    Objective,
    Probe,
    SegPGD,
    WeightedCrossEntropy,
)
from lightning_attack.attacks.objectives.features import FSPGD, RPPGD
from lightning_attack.attacks.objectives.importance import BFA, FIA, NAA
from lightning_attack.attacks.objectives.losses import JensenShannon, LogitsRatio, MaskedSpherical, Tsallis
from lightning_attack.attacks.objectives.masked import (
    BalancedCrossEntropy,
    BalancedMaskedCrossEntropy,
    EroSeg,
    MaskedCrossEntropy,
)
from lightning_attack.attacks.objectives.transegpgd import FoolAllPixels, Staged, Switch, TransferablePixels

__all__ = [
    "BFA",
    "FIA",
    "FSPGD",
    "NAA",
    "RPPGD",
    "BalancedCrossEntropy",
    "BalancedMaskedCrossEntropy",
    "CosPGD",
    "CrossEntropy",
    "EroSeg",
    "FoolAllPixels",
    "JensenShannon",
    "LogitsRatio",
    "MaskedCrossEntropy",
    "MaskedSpherical",
    "Moment",
    "Objective",
    "Probe",
    "SegPGD",
    "Staged",
    "Switch",
    "TransferablePixels",
    "Tsallis",
    "WeightedCrossEntropy",
]
