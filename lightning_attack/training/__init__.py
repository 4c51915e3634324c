"""Train segmentation networks: the LightningModule, adversarial training, example pictures, export of the weights.

.. include:: README.md
"""

from lightning_attack.training.adversarial_training import AdversarialTraining
from lightning_attack.training.example_predictions import ExamplePredictions
from lightning_attack.training.task import SegmentationTask
from lightning_attack.training.universal import UniversalTask
from lightning_attack.training.weights_export import WeightsExport

__all__ = ["AdversarialTraining", "ExamplePredictions", "SegmentationTask", "UniversalTask", "WeightsExport"]
