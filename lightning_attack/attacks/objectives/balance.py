"""How much of an image each class covers: weights of its pixels by that, and the largest other class of each pixel."""

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
    counts = prediction.pixels_of_classes
    of_classes = torch.where(counts > 0, counts.clamp_min(1) ** -power, 0)
    mean = (of_classes * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp_min(1)
    of_classes = of_classes / mean.clamp_min(torch.finfo(counts.dtype).tiny)
    return of_classes.gather(1, prediction.known_labels.flatten(1)).view_as(prediction.labels) * prediction.valid


def largest_other(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """The class of most pixels in the image's labels beside a pixel's own, and whether there is one, both (B, H, W).

    Pixels that a view hides are ignored ones, and do not count. Of classes with as many pixels it is the first. Ignored
    pixels have a class here, too.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 3, 1, 5), torch.tensor([[[0, 0, 0, 1, 2]]]))
        >>> largest_other(prediction)[0]
        tensor([[[1, 1, 1, 0, 0]]])
    """
    counts = prediction.pixels_of_classes.long()
    classes = counts.shape[1]
    # All numbers differ, so that every device sorts them alike.
    ranked = counts * classes - torch.arange(classes, device=counts.device)
    (first, second), there = ranked.topk(2, dim=1).indices.view(-1, 2, 1, 1).unbind(1), (counts > 0).sum(1) > 1
    own = prediction.known_labels
    return torch.where(own == first, second, first), there[:, None, None].expand_as(own)
