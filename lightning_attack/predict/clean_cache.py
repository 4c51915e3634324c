"""`CleanPredictions`: cache of the networks' predictions on clean images, for the runs of a study."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

MEMORY = 512 * 2**20


class CleanPredictions:
    """Predicted classes by network and image, computed once for all attacks of a study.

    They are stored compressed: in memory as long as they fit, then all of them in a temporary file.

    Args:
        memory: bytes of memory that they may take.

    Example:
        >>> cache = CleanPredictions()
        >>> cache.put("network, image", torch.tensor([[0, 20], [255, 149]]))
        >>> cache.get("network, image")
        tensor([[  0,  20],
                [255, 149]])
        >>> cache.get("network, another image") is None
        True
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=memory)  # noqa: SIM115 (it goes when this object goes)
        self._slices: dict[Hashable, tuple[int, int, torch.Size]] = {}

    def classes(
        self,
        network: Hashable,
        digests: Sequence[str],
        predict: Callable[[], Tensor],
        skip: Callable[[int], bool],
    ) -> Tensor:
        """Classes (B, H, W) of a batch: from the cache, or if one image is not in it what `predict` returns.

        Args:
            network: identifies the network and how it is run.
            digests: a hash of each image.
            predict: runs the network on all images; its result goes into the cache.
            skip: true for rows where the prediction failed and must not be cached.
        """
        known = [classes for digest in digests if (classes := self.get((network, digest))) is not None]
        if len(known) == len(digests):
            return torch.stack(known)
        predicted = predict()
        for row, digest in enumerate(digests):
            if not skip(row):
                self.put((network, digest), predicted[row])
        return predicted

    def put(self, key: Hashable, classes: Tensor) -> None:
        """Store classes (H, W), each below 32768."""
        content = zlib.compress(classes.to("cpu", torch.int16).numpy().tobytes(), level=1)
        begin = self._file.seek(0, 2)
        self._file.write(content)
        self._slices[key] = begin, len(content), classes.shape

    def get(self, key: Hashable) -> Tensor | None:
        """The classes, (H, W) int64 on the CPU; None if they are not in the cache."""
        if key not in self._slices:
            return None
        begin, length, shape = self._slices[key]
        self._file.seek(begin)
        classes = np.frombuffer(zlib.decompress(self._file.read(length)), np.int16)
        return torch.from_numpy(classes.astype(np.int64)).view(shape)
