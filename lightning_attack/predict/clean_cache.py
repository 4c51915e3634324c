"""`CleanPredictions`: what networks say about clean photos, kept from one attack to the next."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

MEMORY = 512 * 2**20


class CleanPredictions:
    """Label maps by network and photo, computed once for all attacks of a study.

    They are kept compressed: in memory as long as they fit, then all of them in a temporary file.

    Args:
        memory: bytes of memory that they may take.

    Example:
        >>> kept = CleanPredictions()
        >>> kept.put("network, photo", torch.tensor([[0, 20], [255, 149]]))
        >>> kept.get("network, photo")
        tensor([[  0,  20],
                [255, 149]])
        >>> kept.get("network, another photo") is None
        True
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=memory)  # noqa: SIM115 (it goes when this object goes)
        self._places: dict[Hashable, tuple[int, int, torch.Size]] = {}

    def of(
        self,
        network: Hashable,
        photos: Sequence[str],
        predict: Callable[[], Tensor],
        wrong: Callable[[int], bool],
    ) -> Tensor:
        """Label maps (B, H, W) of photos: those that are kept, or if one of them is missing what `predict` returns.

        Args:
            network: what stands for the network, and for how it is run.
            photos: a hash of each photo.
            predict: the network's classes for all of them.
            wrong: whether what it said of the photo at this place shall not be kept.
        """
        known = [one for photo in photos if (one := self.get((network, photo))) is not None]
        if len(known) == len(photos):
            return torch.stack(known)
        classes = predict()
        for place, photo in enumerate(photos):
            if not wrong(place):
                self.put((network, photo), classes[place])
        return classes

    def put(self, key: Hashable, classes: Tensor) -> None:
        """Keep a label map (H, W) of classes below 32768."""
        content = zlib.compress(classes.to("cpu", torch.int16).numpy().tobytes(), level=1)
        begin = self._file.seek(0, 2)
        self._file.write(content)
        self._places[key] = begin, len(content), classes.shape

    def get(self, key: Hashable) -> Tensor | None:
        """The label map, (H, W) int64 on the CPU; None if there is none."""
        if key not in self._places:
            return None
        begin, length, shape = self._places[key]
        self._file.seek(begin)
        classes = np.frombuffer(zlib.decompress(self._file.read(length)), np.int16)
        return torch.from_numpy(classes.astype(np.int64)).view(shape)
