"""Networks as functions from [0, 1] images to logits of the same size: loaded, wrapped, combined and exported.

.. include:: README.md
"""

from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.models.checkpoint import load_checkpoint
from lightning_attack.models.class_map import ClassMap
from lightning_attack.models.defences import (
    JPEG,
    BitDepth,
    CropAndScale,
    Defence,
    DefendedView,
    FlipAndScales,
    GaussianFilter,
    MedianFilter,
    Purifier,
    ResizeAndPad,
)
from lightning_attack.models.defended import Defended
from lightning_attack.models.denoising import TotalVariation
from lightning_attack.models.ensemble import Ensemble
from lightning_attack.models.export import export_checkpoint, export_model
from lightning_attack.models.exported import ExportedModel
from lightning_attack.models.hub import SMPHub
from lightning_attack.models.huggingface import HuggingFaceModel
from lightning_attack.models.segmenter import RobustSegmenter
from lightning_attack.models.semseg import SemSegModel
from lightning_attack.models.smoothing import Smoothed
from lightning_attack.models.smp import SMPModel, TrainedModel
from lightning_attack.models.torchscript import TorchScriptModel
from lightning_attack.models.torchvision import TorchVisionModel
from lightning_attack.models.upernet import RobustUPerNet
from lightning_attack.models.wrapper import (
    ModelError,
    SegmentationModel,
    as_segmentation_model,
    decide,
    freeze,
    with_windows,
)

__all__ = [
    "JPEG",
    "BitDepth",
    "ClassMap",
    "CropAndScale",
    "Defence",
    "Defended",
    "DefendedView",
    "Ensemble",
    "ExportedModel",
    "FastNetworks",
    "FlipAndScales",
    "GaussianFilter",
    "HuggingFaceModel",
    "MedianFilter",
    "ModelError",
    "Purifier",
    "ResizeAndPad",
    "RobustSegmenter",
    "RobustUPerNet",
    "SMPHub",
    "SMPModel",
    "SegmentationModel",
    "SemSegModel",
    "Smoothed",
    "TorchScriptModel",
    "TorchVisionModel",
    "TotalVariation",
    "TrainedModel",
    "as_segmentation_model",
    "decide",
    "export_checkpoint",
    "export_model",
    "freeze",
    "load_checkpoint",
    "with_windows",
]
