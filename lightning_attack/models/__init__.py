"""Networks as functions from [0, 1] images to logits of the same size."""

from lightning_attack.models.ensemble import Ensemble
from lightning_attack.models.exported import ExportedModel
from lightning_attack.models.smp import SMPModel, TrainedModel
from lightning_attack.models.torchvision import TorchVisionModel
from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model, freeze

__all__ = [
    "Ensemble",
    "ExportedModel",
    "ModelError",
    "SMPModel",
    "SegmentationModel",
    "TorchVisionModel",
    "TrainedModel",
    "as_segmentation_model",
    "freeze",
]
