"""`Scorer`: the classes that networks predict for a batch, and what happens when a target fails on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_attack.engine import out_of_memory
from lightning_attack.models.wrapper import decide
from lightning_attack.predict.recovery import OnError, finite, refuse


class Scorer:
    """Gives the classes that each network predicts for one batch, clean or adversarial.

    Args:
        networks: images (B, 3, H, W) in [0, 1] to logits, by name.
        source: name of the source, whose failures are always errors.
        images: names of the images.
        on_error: whether a target that fails is an error (`raise`), or its classes are zeros and it is in `failed`.

    Attributes:
        failed: for each image the targets that failed on it, by name, with the reason.

    Example:
        >>> score = Scorer({"a": nn.Identity()}, source="b", images=["x", "y"], on_error="skip")
        >>> images = torch.tensor([1.0, torch.nan]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        >>> score("a", images).shape, score.failed
        (torch.Size([2, 1, 1]), [{}, {'a': "'a' gives NaN or infinite logits"}])
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        source: str,
        images: Sequence[str],
        on_error: OnError = "raise",
    ) -> None:
        self._networks, self._source, self._names, self._on_error = networks, source, list(images), on_error
        self.failed: list[dict[str, str]] = [{} for _ in self._names]

    def __call__(self, name: str, images: Tensor, keep: list[Tensor] | None = None) -> Tensor:
        """Classes that a network predicts, (B, H, W); `ABSTAINED` where it abstains.

        Args:
            name: of the network.
            images: (B, 3, H, W) in [0, 1].
            keep: the logits are appended to it.

        Raises:
            ImageError: the source gives NaN, or with `on_error="raise"` a target fails.
            Exception: what the source raises; what a target raises when memory runs out.
        """
        reason = f"'{name}' gives NaN or infinite logits"
        try:
            with torch.no_grad():
                logits = self._networks[name](images)
                classes = decide(self._networks[name], logits)
            # The largest are all that counts, and cheaper to look at than all of them.
            bad = ~finite(logits.gather(1, classes.clamp(min=0)[:, None]))
            if keep is not None:
                keep.append(logits)
        except Exception as error:
            if name == self._source or out_of_memory(error):
                raise
            reason = f"'{name}' fails ({type(error).__name__}: {error})"
            classes = images.new_zeros(images[:, 0].shape, dtype=torch.int64)
            bad = torch.ones(len(images), dtype=torch.bool)
        if name == self._source or self._on_error == "raise":
            refuse(bad, self._names, reason)
        for row in bad.nonzero().flatten().tolist():
            self.failed[row][name] = reason
        return classes
