"""What happens around attacks and training: score, save, show. Callbacks know what modules return, and no attack."""

from lightning_attack.callbacks.example_predictions import ExamplePredictions
from lightning_attack.callbacks.graceful_stop import GracefulStop
from lightning_attack.callbacks.image_logger import ImageLogger
from lightning_attack.callbacks.image_writer import ImageWriter
from lightning_attack.callbacks.overview import Overview
from lightning_attack.callbacks.progress import AttackProgress
from lightning_attack.callbacks.run_folder import RunFolder
from lightning_attack.callbacks.transfer_metrics import TransferMetrics
from lightning_attack.callbacks.weights_export import WeightsExport

__all__ = [
    "AttackProgress",
    "ExamplePredictions",
    "GracefulStop",
    "ImageLogger",
    "ImageWriter",
    "Overview",
    "RunFolder",
    "TransferMetrics",
    "WeightsExport",
]
