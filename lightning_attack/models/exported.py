"""Networks from files of `torch.export` (`.pt2`)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_attack.models.wrapper import ModelError, SegmentationModel


class ExportedModel(SegmentationModel):
    """A network saved with `torch.export.save`: architecture and weights in one file, no code of its own needed.

    Args:
        path: the `.pt2` file.
        num_classes: number of classes; None reads it off the file.
        mean: subtracted first; the default leaves [0, 1] images as they are (most exported networks normalise inside).
        std: divided by.
        stride: images are padded to multiples of it.
        name: name in tables and folders; the default is the file's name without suffix.

    Raises:
        ModelError: no such file, or not an exported program.
    """

    def __init__(
        self,
        path: str,
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        stride: int = 1,
        name: str | None = None,
    ) -> None:
        if not Path(path).is_file():
            raise ModelError(f"no file '{path}'")
        if not zipfile.is_zipfile(path):
            raise ModelError(f"'{path}' is not a file of torch.export.save (it is no zip archive)")
        try:
            network = torch.export.load(path).module()
        except Exception as error:  # torch.export raises whatever its zip and JSON readers raise
            raise ModelError(
                f"'{path}' is not a file of torch.export.save ({type(error).__name__}: {error})"
            ) from error
        super().__init__(network, num_classes, mean, std, stride, name or Path(path).stem)

    def train(self, mode: bool = True) -> ExportedModel:
        """Set the flag only: an exported network has no modes, and its own `train()` and `eval()` refuse."""
        self.training = mode
        return self
