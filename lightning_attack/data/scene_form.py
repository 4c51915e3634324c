"""The form of what data sets give, checked where a scene is read: arrays of the right shapes and types, and a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.pixels import LEVELS
from lightning_attack.data.base import DataError, Scene, SegmentationDataset, check_mask


def read_scene(dataset: SegmentationDataset, index: int) -> Scene:
    """Scene `index` of a data set, with arrays of the types that torch computes with, in memory in their order.

    Images are uint8 or float32, masks uint8 or int64.

    Raises:
        DataError: it is not of the form that `Scene` describes, the mask does not fit the photo or the classes, or
            there are masks and no classes.

    Example:
        >>> class Grey(SegmentationDataset):
        ...     def __len__(self):
        ...         return 1
        ...     def __getitem__(self, index):
        ...         return Scene(np.zeros((4, 6), np.uint8), None, "a")
        >>> read_scene(Grey(), 0)
        Traceback (most recent call last):
            ...
        lightning_attack.data.base.DataError: the image of 'a' is (4, 6) uint8; expected (H, W, 3) uint8
        repeat a grey one: np.repeat(image[..., None], 3, 2)
    """
    scene: Any = dataset[index]
    if not isinstance(scene, Scene):
        raise DataError(
            f"{type(dataset).__name__}[{index}] is a {type(scene).__name__}; expected Scene(image, mask, name) of "
            "lightning_attack.data"
        )
    _check_name(scene.name)
    _check_image(scene.image, scene.name)
    image = np.ascontiguousarray(scene.image, np.uint8 if scene.image.dtype == np.uint8 else np.float32)
    if scene.mask is None:
        return Scene(image, None, scene.name)
    if dataset.classes is None:
        raise DataError(
            f"'{scene.name}' has a mask, but {type(dataset).__name__} has no classes: set `classes` to their names, in "
            "the order of their numbers (or give no masks)"
        )
    mask: object = scene.mask
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "uib":
        raise DataError(f"the mask of '{scene.name}' is {_said(mask)}; expected (H, W) integers, one class per pixel")
    check_mask(scene.mask, scene.image, len(dataset.classes) or None, scene.name)
    # bool and int8 cannot hold 255, which marks what is ignored.
    mask = np.ascontiguousarray(scene.mask, np.uint8 if scene.mask.dtype.itemsize == 1 else np.int64)
    return Scene(image, mask, scene.name)


def check_classes(classes: Sequence[str] | None, key: str) -> None:
    """Raise `DataError` if the classes of a data set are not names, each one once.

    Args:
        classes: of the data set; None where it has no labels.
        key: its setting, for the message.

    Example:
        >>> check_classes(("road", "road"), "data.dataset")
        Traceback (most recent call last):
            ...
        lightning_attack.data.base.DataError: data.dataset: classes has 'road' twice; tables tell classes by their names
    """
    if classes is None:
        return
    if not isinstance(classes, tuple | list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{key}: classes are {classes!r}; expected the names of the classes, such as ('road', 'sky')")
    if len(classes) > IGNORE_INDEX:
        raise DataError(
            f"{key} has {len(classes)} classes; labels are of 8 bits, and {IGNORE_INDEX} marks ignored pixels, so at "
            f"most {IGNORE_INDEX} can be told apart: merge some, or leave out rare ones"
        )
    if twice := [name for name, count in Counter(classes).items() if name and count > 1]:
        raise DataError(f"{key}: classes has '{twice[0]}' twice; tables tell classes by their names")


def one_kind(masked: Mapping[str, bool]) -> None:
    """Raise `DataError` if some photos have masks and others have none.

    Args:
        masked: whether each has one, by its name.
    """
    if len({*masked.values()}) > 1:
        with_mask, without = (next(name for name, has in masked.items() if has is one) for one in (True, False))
        raise DataError(
            f"'{with_mask}' has a mask and '{without}' has none; labels are masks or the source's clean predictions, "
            "not some of each: leave out photos without masks (or give them one of 255 only), or give no masks"
        )


def _check_name(name: object) -> None:
    """Raise `DataError` if a file of that name would lie outside of the run's folder, or under another name."""
    if not isinstance(name, str):
        raise DataError(f"a photo is named {name!r}; expected text, under which its adversarial image is saved")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name or str(path) != name:
        raise DataError(f"a photo is named '{name}', and cannot be saved under that name in the run's folder")


def _check_image(image: object, name: str) -> None:
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size:
        if image.dtype == np.uint8 or (
            image.dtype.kind == "f" and float(image.min()) >= 0 and float(image.max()) <= 1  # NaN fails, too
        ):
            return
        remedy = _remedy_of_values(image)
    elif isinstance(image, np.ndarray) and image.ndim == 2:
        remedy = "repeat a grey one: np.repeat(image[..., None], 3, 2)"
    elif isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] == 3:
        remedy = "colours come last: image.transpose(1, 2, 0)"
    elif isinstance(image, np.ndarray):
        remedy = "red, green and blue, without alpha"
    else:
        remedy = "np.asarray(...) of a Pillow image in RGB; of a tensor (3, H, W) .permute(1, 2, 0).numpy()"
    raise DataError(f"the image of '{name}' is {_said(image)}; expected (H, W, 3) uint8\n{remedy}")


def _remedy_of_values(image: np.ndarray) -> str:
    """How an image whose form is right and whose type is not gets levels of 8 bits."""
    if image.dtype.kind not in "iu" or int(image.min()) < 0:
        return "8-bit levels, or floats in [0, 1]"
    if (white := int(image.max())) <= LEVELS:
        return "such as image.astype(np.uint8)"
    return (
        f"its brightest value is {white}: scale it by the value of white, such as "
        "(image / 65535 * 255).round().astype(np.uint8)"
    )


def _said(value: object) -> str:
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
