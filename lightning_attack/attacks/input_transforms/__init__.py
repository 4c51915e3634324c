"""Input transforms: the views of an image that the source is shown in place of it."""

from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform, View
from lightning_attack.attacks.input_transforms.copies import Admix, ScaleCopies, SpectrumSimulation, StraightThrough
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions

__all__ = [
    "Admix",
    "BlockShuffle",
    "DynamicScaling",
    "InputDiversity",
    "InputTransform",
    "LocalRegions",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "ScaleCopies",
    "SpectrumSimulation",
    "StraightThrough",
    "View",
]
