"""Data sets of photos and label maps, and the LightningDataModule that makes batches of them.

.. include:: README.md
"""

from lightning_attack.data.ade20k import ADE20K
from lightning_attack.data.augment import Augment
from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.camvid import CamVid
from lightning_attack.data.cityscapes import Cityscapes
from lightning_attack.data.datamodule import SegmentationDataModule
from lightning_attack.data.folder import ImageFolder
from lightning_attack.data.sbd import SBDSegmentation, TrainAug
from lightning_attack.data.synthetic import SyntheticScenes
from lightning_attack.data.voc import VOCSegmentation

__all__ = [
    "ADE20K",
    "Augment",
    "CamVid",
    "Cityscapes",
    "DataError",
    "ImageFolder",
    "SBDSegmentation",
    "Scene",
    "SegmentationDataModule",
    "SegmentationDataset",
    "SyntheticScenes",
    "TrainAug",
    "VOCSegmentation",
]
