"""`SegmentationDataset` and `Scene`: the base of all data sets, photos with label maps and names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from lightning_attack.common.errors import UserError
from lightning_attack.common.labels import IGNORE_INDEX


class DataError(UserError, ValueError):
    """A photo or mask that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Scene:
    """One photo with its label map, as read from disk or drawn.

    Attributes:
        image: photo, (H, W, 3) uint8.
        mask: class of each pixel, (H, W) uint8, 255 = ignored; None where a data set has no labels.
        name: path below the data set's root without suffix, unique; the adversarial image is saved under it.
    """

    image: np.ndarray
    mask: np.ndarray | None
    name: str


class SegmentationDataset(Dataset[Scene], ABC):
    """Photos with label maps. A subclass gives `classes`, `__len__` and `__getitem__`.

    Example:
        >>> import numpy as np
        >>> class Grey(SegmentationDataset):
        ...     classes = ("nothing", "something")
        ...     def __len__(self):
        ...         return 1
        ...     def __getitem__(self, index):
        ...         return Scene(np.full((2, 2, 3), 128, np.uint8), np.zeros((2, 2), np.uint8), "grey")
        >>> Grey()[0].image.shape
        (2, 2, 3)
    """

    classes: tuple[str, ...] | None = None
    """Class names in the order of the labels; None where the data set has no labels."""

    labels_settled: bool = False
    """Whether it is certain what the values of masks mean, so that they are not suspected of meaning something else."""

    concurrent: bool = False
    """Whether several threads may read scenes at once: the look at all photos before a run is faster then, and of many
    photos may go on during the run."""

    drawn: bool = False
    """Whether scenes are computed and not read, so that none can be damaged: training does not look at them first."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of scenes."""

    @abstractmethod
    def __getitem__(self, index: int) -> Scene:
        """Read or draw scene `index`. Raises `DataError` where it cannot."""

    def photo_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of photo `index`, told without reading it whole; None where that is not possible.

        Photos of their own sizes are dealt out to the processes of a run by it, and engines tell by it what pays. A
        photo that cannot be read has (0, 0).
        """
        return None

    def check_labels(self) -> None:
        """Raise `DataError` if the masks, all of which were read now, cannot be what this data set takes them for."""


def values_in(mask: np.ndarray) -> np.ndarray:
    """The values that occur in a label map, in order."""
    # Counting is much faster than sorting the two million pixels of a street scene.
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256)) if mask.dtype == np.uint8 else np.unique(mask)


def check_mask_size(mask: np.ndarray, image: np.ndarray, name: str) -> None:
    """Raise `DataError` if a mask does not have the size of its photo."""
    if mask.shape != image.shape[:2]:
        turned = mask.shape == image.shape[1::-1]
        raise DataError(
            f"mask of '{name}' is {mask.shape[0]}x{mask.shape[1]}, but its photo is {image.shape[0]}x{image.shape[1]} "
            "(height x width); both must have the same size"
            + (
                ", and one is not turned by the EXIF orientation of the other"
                if turned
                else "; resize one of the two, masks by nearest neighbour (Pillow: mask.resize(size, Image.NEAREST))"
            )
        )


def check_mask(mask: np.ndarray, image: np.ndarray, num_classes: int | None, name: str) -> None:
    """Raise `DataError` if a mask does not fit its photo or holds a class that the data set does not know.

    Where the data set has no classes (None), only the size is checked.

    Example:
        >>> import numpy as np
        >>> check_mask(np.full((2, 2), 9), np.zeros((2, 2, 3)), 8, "a")
        Traceback (most recent call last):
            ...
        lightning_attack.data.base.DataError: mask of 'a' holds the class 9, but the classes are 0..7 (and 255 = ignore)
    """
    check_mask_size(mask, image, name)
    if num_classes is None:
        return
    foreign = np.setdiff1d(values_in(mask), [*range(num_classes), IGNORE_INDEX])
    if foreign.size:
        several = len(foreign) > 1
        raise DataError(
            f"mask of '{name}' holds the class{'es' if several else ''} {', '.join(map(str, foreign[:5]))}"
            f"{', ...' if len(foreign) > 5 else ''}, but the classes are 0..{num_classes - 1} (and {IGNORE_INDEX} = "
            f"ignore){_likely(foreign, num_classes)}"
        )


def _likely(foreign: np.ndarray, num_classes: int) -> str:
    """What masks with such foreign values often are."""
    if foreign.tolist() == [num_classes]:
        return "; do the masks count classes from 1, with 0 for unlabelled? ImageFolder reads them with label_offset: 1"
    if len(foreign) > 20 and foreign[-1] > 200:
        return "; was the mask saved as JPEG, or resized with smoothing?"
    return ""
