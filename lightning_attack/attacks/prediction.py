"""`Prediction`: logits and labels of a batch, and the quantities that objectives share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.engine import cross_entropy


class Prediction:
    """Logits and labels, with the quantities that objectives share; each is computed once, if at all.

    Args:
        logits: (B, C, H, W) in the geometry of the labels; half types are raised to float32.
        labels: (B, H, W) int64, 255 = ignored: the true classes, or in a targeted attack the wanted ones.
        targeted: whether the labels are wanted.
        features: outputs of named layers of the model, for objectives that need them (`Objective.layers`).
        hidden: number of labelled pixels of each image that were not shown to the model, (B,); their labels are 255
            here. None = 0.
        extents: of layers, the height and width that their features cover: those of the images, or larger ones where a
            network is shown images padded at the bottom and the right, see `Recorder`.

    Raises:
        ValueError: the shapes of logits and labels do not fit.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        targeted: bool = False,
        features: Mapping[str, Tensor] | None = None,
        hidden: Tensor | None = None,
        extents: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        check_logits(logits, labels.shape)
        if logits.shape[1] == 1:
            raise AttackError(
                "the model returned one channel, and so one class, which no attack can change. Wrap it in "
                "SegmentationModel, which makes two classes of the logit of a binary network"
            )
        self.logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        self.labels, self.targeted, self.features = labels, targeted, features or {}
        self.hidden = torch.zeros_like(labels[:, 0, 0]) if hidden is None else hidden
        self._extents = extents or {}
        self._known: dict[float, tuple[Tensor, Tensor]] = {}

    def extent(self, layer: str) -> tuple[int, int]:
        """Height and width in pixels that the features of a layer cover; beyond those of the image lies padding."""
        return self._extents.get(layer, (self.labels.shape[1], self.labels.shape[2]))

    @property
    def log_probs(self) -> Tensor:
        """Log softmax over the classes, (B, C, H, W), detached."""
        return self._scores(1.0)[1]

    @cached_property
    def probs(self) -> Tensor:
        """Softmax over the classes, (B, C, H, W), detached."""
        return self.log_probs.exp()

    @cached_property
    def cross_entropy(self) -> Tensor:
        """-log p_y of each pixel, (B, H, W); 0 on ignored pixels."""
        return self.softened_cross_entropy(1.0)

    def softened_cross_entropy(self, temperature: float) -> Tensor:
        """-log softmax(z / temperature)_y of each pixel, (B, H, W); 0 on ignored pixels."""
        return self._scores(temperature)[0]

    def _scores(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Cross-entropy and log-probabilities, computed together."""
        if temperature not in self._known:
            # With a graph for all later uses, even if the first one (a weight) is inside no_grad.
            with torch.set_grad_enabled(self.logits.requires_grad):
                logits = self.logits if temperature == 1 else self.logits / temperature
                self._known[temperature] = cross_entropy(logits, self.labels, IGNORE_INDEX)
        return self._known[temperature]

    @cached_property
    def valid(self) -> Tensor:
        """Pixels with a label, (B, H, W) bool."""
        return self.labels != IGNORE_INDEX

    @cached_property
    def known_labels(self) -> Tensor:
        """Labels with 0 in place of "ignored", (B, H, W), for looking up the label's own logit."""
        return torch.where(self.valid, self.labels, 0)

    @cached_property
    def pixels_of_classes(self) -> Tensor:
        """Number of labelled pixels of each image and class, (B, C), as floating numbers."""
        images, classes = self.logits.shape[:2]
        first = torch.arange(images, device=self.labels.device)[:, None] * classes
        counts = torch.zeros(images * classes, dtype=torch.int64, device=self.labels.device)
        # Flat, in integers: deterministic on every device. `bincount` would wait for the device.
        counts.scatter_add_(0, (first + self.known_labels.flatten(1)).flatten(), self.valid.flatten().long())
        return counts.view(images, classes).to(self.logits.dtype)

    def of_label(self, values: Tensor) -> Tensor:
        """Of values (B, C, H, W) the one of each pixel's label, (B, H, W); some number on ignored pixels."""
        return values.gather(1, self.known_labels[:, None])[:, 0]

    @cached_property
    def classes(self) -> Tensor:
        """Predicted class of each pixel, (B, H, W)."""
        # max(1)[1] is argmax(1) and several times faster on (B, C, H, W) logits.
        return self.logits.detach().max(1)[1]

    @cached_property
    def unfooled(self) -> Tensor:
        """P_T: labelled pixels that the attack has not won yet, (B, H, W) bool.

        Those predicted as their label; in a targeted attack those not predicted as the wanted class.
        """
        right = self.classes == self.labels
        return (~right if self.targeted else right) & self.valid

    @cached_property
    def count(self) -> Tensor:
        """Number of labelled pixels of each image, (B,)."""
        return self.valid.flatten(1).sum(1)

    def fraction(self, pixels: Tensor) -> Tensor:
        """Share of each image's labelled pixels that a map (B, H, W) of booleans marks, (B,); NaN where none is."""
        return (pixels & self.valid).flatten(1).sum(1) / self.count

    def select(self, rows: Tensor) -> Prediction:
        """The prediction for some of the images."""
        features = {name: value[rows] for name, value in self.features.items()}
        hidden = self.hidden[rows]
        return Prediction(self.logits[rows], self.labels[rows], self.targeted, features, hidden, self._extents)

    def detached(self) -> Prediction:
        """The prediction without its graph."""
        features = {name: value.detach() for name, value in self.features.items()}
        return Prediction(self.logits.detach(), self.labels, self.targeted, features, self.hidden, self._extents)


def check_logits(logits: object, shape: Sequence[int], what: str = "labels") -> None:
    """Raise `AttackError` if what a model returned is no logits (B, C, H, W) of images of a shape (B, H, W).

    Args:
        logits: what it returned.
        shape: the shape.
        what: has this shape, for the message.
    """
    if not isinstance(logits, Tensor):
        raise AttackError(
            f"the model returned {type(logits).__name__}; expected logits (B, C, H, W) of the images' size. "
            "Wrap it in SegmentationModel, which takes them from the key 'out' or 'logits' of a dictionary"
        )
    if logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != tuple(shape):
        raise AttackError(
            f"the model returned {tuple(logits.shape)} for {what} {tuple(shape)}; expected logits "
            "(B, C, H, W) of the images' size. Wrap it in SegmentationModel, which takes others, too"
        )
