"""Read photos and label maps from disk, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lightning_attack.data.base import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_photo(path: Path) -> np.ndarray:
    """A photo as (H, W, 3) uint8; grey, palette and CMYK photos are converted to RGB.

    Raises:
        DataError: the file is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise DataError(f"photo '{path}' has more than 8 bits per colour (mode {image.mode}); save it with 8")
            return np.array(image.convert("RGB"))
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"photo '{path}' cannot be read ({error})") from error


def read_mask(path: Path) -> np.ndarray:
    """A label map as (H, W) uint8: the values of a greyscale PNG, the indices of a palette PNG.

    Raises:
        DataError: the file is missing, no image, truncated, or a colour image.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(
                    f"mask '{path}' has mode {image.mode}; expected one class number per pixel "
                    "(8-bit greyscale or palette PNG), not colours"
                )
            return np.array(image, dtype=np.uint8)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"mask '{path}' cannot be read ({error})") from error
