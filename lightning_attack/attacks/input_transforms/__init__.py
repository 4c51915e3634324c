"""Input transforms: the views of an image that the source is shown in place of it."""

from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform, View
from lightning_attack.attacks.input_transforms.chain import RandomChain
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import (
    Admix,
    MixMask,
    ScaleCopies,
    SpectrumSimulation,
    StraightThrough,
)
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.input_transforms.masks import MaskedBlocks
from lightning_attack.attacks.input_transforms.noise import RandomNoise
from lightning_attack.attacks.input_transforms.paths import IntegratedGradients
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.input_transforms.shifts import DiverseSizes, GridShifts, MovedCopies
from lightning_attack.attacks.input_transforms.stretch import BlockStretch
from lightning_attack.attacks.input_transforms.structure import StructureInvariance
from lightning_attack.attacks.input_transforms.warp import ConstrainedWarp

__all__ = [
    "Admix",
    "BlockShuffle",
    "BlockStretch",
    "ConstrainedWarp",
    "DiverseSizes",
    "DynamicScaling",
    "GridShifts",
    "InputDiversity",
    "InputTransform",
    "IntegratedGradients",
    "LocalRegions",
    "MaskedBlocks",
    "MixMask",
    "MovedCopies",
    "RandomAffine",
    "RandomChain",
    "RandomColour",
    "RandomCrop",
    "RandomFlip",
    "RandomNoise",
    "ScaleCopies",
    "SpectrumSimulation",
    "StraightThrough",
    "StructureInvariance",
    "View",
]
