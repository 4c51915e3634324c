"""Data sets with label maps, and the batches that attacks and networks see."""

from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.datamodule import SegmentationDataModule
from lightning_attack.data.folder import ImageFolder
from lightning_attack.data.synthetic import SyntheticScenes
from lightning_attack.data.voc import VOCSegmentation

__all__ = [
    "DataError",
    "ImageFolder",
    "Scene",
    "SegmentationDataModule",
    "SegmentationDataset",
    "SyntheticScenes",
    "VOCSegmentation",
]
