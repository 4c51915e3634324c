"""Weights of pixels by how much of the image their class covers."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.attacks.prediction import Prediction


def balance(prediction: Prediction, power: float) -> Tensor:
    """Weights of the pixels by the areas of their classes in the image, (B, H, W); 0 on ignored pixels.

        w proportional to N_c^-power,   N_c = pixels of class c in the image's labels;   mean over its labelled pixels 1

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 5), torch.tensor([[[0, 0, 0, 0, 1]]]))
        >>> balance(prediction, power=0.5)             # 1/2 and 1, whose mean was 0.6
        tensor([[[0.8333, 0.8333, 0.8333, 0.8333, 1.6667]]])
    """
    counts = pixels_of_classes(prediction)
    of_classes = torch.where(counts > 0, counts.clamp_min(1) ** -power, 0)
    mean = (of_classes * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp_min(1)
    of_classes = of_classes / mean.clamp_min(torch.finfo(counts.dtype).tiny)
    return of_classes.gather(1, prediction.known_labels.flatten(1)).view_as(prediction.labels) * prediction.valid


def pixels_of_classes(prediction: Prediction) -> Tensor:
    """Number of labelled pixels of each image and class, (B, C), as floating numbers."""
    images, classes = prediction.logits.shape[:2]
    first = torch.arange(images, device=prediction.labels.device)[:, None] * classes
    counts = torch.zeros(images * classes, dtype=torch.int64, device=prediction.labels.device)
    # Flat, in integers: deterministic on every device. `bincount` would wait for the device.
    counts.scatter_add_(0, (first + prediction.known_labels.flatten(1)).flatten(), prediction.valid.flatten().long())
    return counts.view(images, classes).to(prediction.logits.dtype)
