"""Networks from TorchScript files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_attack.models.weights import check_kind
from lightning_attack.models.wrapper import ModelError, SegmentationModel


class TorchScriptModel(SegmentationModel):
    """A network saved with `torch.jit.save`, for files that there is no other form of.

    TorchScript is deprecated in PyTorch in favour of `torch.export`; a warning says so. A TorchScript file is a
    program: it runs in an interpreter without Python, but its operators can read and write files, so load only those
    that you trust.

    Args:
        path: the file.
        num_classes: number of classes; None reads it off the first output.
        mean: subtracted first; the default leaves [0, 1] images as they are.
        std: divided by.
        stride: images are padded to multiples of it.
        name: name in tables and folders; the default is the file's name without suffix.

    Raises:
        ModelError: no such file, or no TorchScript network.
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
        check_kind(path, "script", "torch.jit.save")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own warning of the deprecation; ours says what to do
                network = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"'{path}' is not a file of torch.jit.save ({str(error).strip().splitlines()[0]}); files of "
                "torch.export (.pt2) are for ExportedModel, weights for SMPModel or TorchVisionModel"
            ) from error
        warnings.warn(
            f"'{path}' is TorchScript, which PyTorch has deprecated; a later version may not load it. Where you have "
            "the network itself, save it with torch.export.save and use ExportedModel",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__(network, num_classes, mean, std, stride, name or Path(path).stem)
