"""`WeightsExport`: save the best weights after training, as one small file that `predict` can load."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_attack.common.data_module import of_data
from lightning_attack.common.first_process import in_first_process
from lightning_attack.models.weights import read_weights, strip_prefix, write_weights


class WeightsExport(Callback):
    """When `fit` ends, write the network's weights to `weights.safetensors` in the run's folder, for `TrainedModel`.

    The weights are those of the best checkpoint if a `ModelCheckpoint` kept one, else the last ones.

    Args:
        half: store in half precision: half the size, and a change of the predictions far below that of 8-bit rounding.
            Tensors whose values half precision cannot hold are stored as they are.
    """

    def __init__(self, half: bool = True) -> None:
        self.half = half

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = Path(trainer.log_dir or ".")  # talks to the other processes: all of them must ask

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            in_first_process(trainer, lambda: self._export(trainer, pl_module))

    def _export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, in the first process."""
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        state = read_weights(Path(best)) if best else pl_module.state_dict()
        # A SegmentationTask holds a SegmentationModel, which holds the network.
        network = strip_prefix(state, "network.network.")
        recipe = getattr(pl_module.network, "recipe", None)
        classes = of_data(trainer, "trained_classes")
        tensors = {name: self._stored(tensor) for name, tensor in network.items()}
        write_weights(self._folder / "weights.safetensors", tensors, recipe, classes)

    def _stored(self, tensor: Tensor) -> Tensor:
        if self.half and tensor.is_floating_point() and bool(torch.isfinite(tensor.half()).all()):
            return tensor.half()
        return tensor
