"""Loops: attacks that take steps themselves, the iterative one and those that need a loop of their own."""

from lightning_attack.attacks.loops.adaea import AdaEA
from lightning_attack.attacks.loops.alma_prox import ALMAProx
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.common_weakness import CommonWeakness
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.global_momentum import GlobalMomentum
from lightning_attack.attacks.loops.gradient import LossGradient
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.minimal_norm import MinimalNorm
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.loops.rotation import SourceRotation
from lightning_attack.attacks.loops.soup import Soup
from lightning_attack.attacks.loops.svre import SVRE

__all__ = [
    "APGD",
    "DAG",
    "SVRE",
    "ALMAProx",
    "AdaEA",
    "CommonWeakness",
    "GlobalMomentum",
    "IterativeAttack",
    "LossGradient",
    "MinimalNorm",
    "PatchWise",
    "Soup",
    "SourceRotation",
]
