"""Photos with 16 bits per colour, scaled to 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torchvision.io import ImageReadMode, decode_image

from lightning_attack.data.base import DataError

FULL = 65535
_WHITE_IS_0 = 0
CAMERA_LEVELS = (1023, 4095, 16383)
"""White in raw values of 10, 12 and 14 bits, which many programs write into 16 bits unscaled."""


def read_deep(image: Image.Image, path: Path, white_level: int | None) -> np.ndarray:
    """The pixels of an opened photo of 16 bits per colour, as (H, W, 3) uint8.

    Args:
        image: the file as Pillow opened it; of colours Pillow itself keeps the high byte only.
        path: the file.
        white_level: value of white; None: 65535, and the photo must look like it.

    Raises:
        DataError: it cannot be told what is white, or the file is of a form that cannot be read exactly.
    """
    if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_0:
        raise DataError(f"photo '{path}' is a TIFF file in which 0 is white; save it with 65535 as white, or as PNG")
    if image.mode.startswith("I;16"):
        values = np.array(image).astype(np.uint16)
        return scale(np.repeat(values[..., None], 3, 2), path, white_level)
    if image.format != "PNG":
        raise deep_refused(image, path)
    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    try:
        decoded = decode_image(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    except RuntimeError as error:
        raise DataError(f"photo '{path}' cannot be read ({error})") from error
    grey = decoded.shape[2] < 3  # with or without an alpha channel, which is dropped
    return scale(np.repeat(decoded[..., :1], 3, 2) if grey else decoded[..., :3], path, white_level)


def deep_refused(image: Image.Image, path: Path) -> DataError:
    """The error for a photo of 16 bits per colour of which Pillow would keep a part only."""
    return DataError(f"photo '{path}' has 16 bits per colour in a {image.format} file; save it with 8, or as PNG")


def scale(values: np.ndarray, path: Path, white_level: int | None) -> np.ndarray:
    """Values of 16 bits as levels of 8, rounded to the nearest.

    Raises:
        DataError: the values are above the given white, or none is given and all are below a quarter of the range, as
            raw values of a camera are.

    Example:
        >>> scale(np.array([0, 128, 129, 32768, 65535], np.uint16), Path("a.png"), None).tolist()
        [0, 0, 1, 128, 255]
        >>> scale(np.array([0, 2048, 4095], np.uint16), Path("a.png"), white_level=4095).tolist()
        [0, 128, 255]
    """
    peak = int(values.max())
    if white_level is None and peak <= CAMERA_LEVELS[-1]:
        likely = next(level for level in CAMERA_LEVELS if peak <= level)
        raise DataError(
            f"photo '{path}' has 16 bits per colour, but its brightest value is {peak} of {FULL}; are these "
            f"{likely.bit_length()}-bit values of a camera? ImageFolder reads them with white_level: {likely} (or "
            f"{FULL}, if the photo is that dark)"
        )
    white = FULL if white_level is None else white_level
    if peak > white:
        raise DataError(f"photo '{path}' has the value {peak}, above white_level: {white}")
    return ((values.astype(np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)
