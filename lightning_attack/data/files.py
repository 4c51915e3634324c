"""Read photos and label maps from disk, with errors that name the file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from lightning_attack.common.file_starts import kind_of_start
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError
from lightning_attack.data.deep_photos import deep_refused, read_deep
from lightning_attack.data.listing import existing
from lightning_attack.data.lossy import lossy_form
from lightning_attack.data.several import check_one_picture

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".jpe")
_ORIENTATION = 0x0112
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies grey values of 2 and 4 bits, so that the largest becomes 255."""

_DEEP = ("I", "I;16", "I;16B", "F")
"""Pillow's names for grey values of 16 and 32 bits."""


class MaskFile(NamedTuple):
    """What a file with a label map holds, as it lies there."""

    values: np.ndarray
    """(H, W) uint8: grey values or palette indices; or (H, W, 3) uint8: colours."""
    palette: np.ndarray | None = None
    """(N, 3) uint8: the colour of each index, where the values are indices."""
    mode: str = "L"
    """Pillow's name of the form."""


def read_photo(path: Path, white_level: int | None = None, content: bytes | None = None) -> np.ndarray:
    """A photo as (H, W, 3) uint8, upright as its EXIF orientation says.

    Grey, palette and CMYK photos are converted to RGB; 16 bits per colour are scaled to 8 and rounded.

    Args:
        path: the file.
        white_level: value of white in photos of 16 bits, such as 4095 for a camera's 12; None: 65535, and photos that
            are so dark by it that something else must be meant are refused.
        content: of the file, where it lies in another one; `path` then is for messages.

    Raises:
        DataError: the file is missing, no image, or truncated, or has colours of a form that would be cut.
    """
    with _opened(path, "photo", content) as image:
        check_one_picture(image, path, "photo")
        raw = _raw_mode(image)
        if image.mode[0] in "IF" or re.match("(RGB|LA|CMYK)[AXa]*;16", raw):
            if image.mode[0] == "F" or image.mode == "I":
                raise DataError(f"photo '{path}' has more than 16 bits per colour (mode {image.mode}); save it with 8")
            return _upright(read_deep(image, path, white_level), image)
        if isinstance(image, TiffImageFile) and max(image.tag_v2.get(BITSPERSAMPLE, (8,))) > 8:  # a plane per colour
            raise deep_refused(image, path)
        pixels = np.array(image.convert("RGB"))
        return _upright(pixels, image)


def read_mask(path: Path) -> np.ndarray:
    """A label map as (H, W) uint8: the values of a greyscale file, the indices of a palette file.

    Raises:
        DataError: the file is missing, no image, truncated, or a colour image.
    """
    mask = open_mask(path)
    if mask.values.ndim == 3:
        raise colours_refused(path, mask.mode)
    return mask.values


def open_mask(path: Path) -> MaskFile:
    """A label map as it lies in its file, upright by its EXIF orientation: class numbers of 1 to 8 bits, or colours.

    Raises:
        DataError: the file is missing, no image, truncated, or of another form.
    """
    with _opened(path, "mask") as image:
        check_one_picture(image, path, "mask")
        mode, raw = image.mode, _raw_mode(image)
        if form := lossy_form(image, path):
            raise DataError(
                f"mask '{path}' is {form}, whose compression changes numbers and colours along every edge; save masks "
                "as PNG, from the original labels"
            )
        _check_maxval(image, path)
        if mode in _DEEP:
            raise _deep_refused(image, path)
        if mode == "LA":
            return MaskFile(_upright(np.array(_opaque(image, path)), image), None, "L")
        if mode not in ("L", "P", "1", "RGB", "RGBA") or ";16" in raw:
            raise colours_refused(path, f"{mode} of 16 bits" if ";16" in raw and mode[0] != "I" else mode)
        if mode in ("L", "1") and re.search(r";\d?I", raw):
            raise DataError(
                f"mask '{path}' is a {image.format} file in which 0 is white, so its numbers are ambiguous; save it as "
                "PNG"
            )
        values = np.array(image, dtype=np.uint8)
        if raw in _GREY_STEPS:
            values //= _GREY_STEPS[raw]
        palette = _palette(image) if mode == "P" else None
        if mode == "RGBA":
            if values[..., 3].min() < 255:
                raise _transparent(path)
            values = np.ascontiguousarray(values[..., :3])
        return MaskFile(_upright(values, image), palette, mode)


def _check_maxval(image: Image.Image, path: Path) -> None:
    """Raise `DataError` for a PGM or PPM mask whose numbers Pillow scales, since its header has another maxval."""
    if not isinstance(image, PpmImageFile):
        return
    decoder, *_, arguments = image.tile[0]
    maxval = arguments[-1] if decoder in ("ppm", "ppm_plain") and isinstance(arguments, tuple) else None
    if maxval not in (None, 65535 if image.mode == "I" else 255):
        raise DataError(
            f"mask '{path}' has the maxval {maxval}, so its numbers are shares of {maxval}; expected 255, where they "
            "are classes. If they are classes all the same, "
            + (f"write 255 in place of {maxval} into its header, or " if maxval < 255 else "")
            + "save them as 8-bit PNG"
        )


def _deep_refused(image: Image.Image, path: Path) -> DataError:
    """The error for a mask of 16 or 32 bits, which may hold class numbers or something else."""
    most = float(np.array(image).max())
    return DataError(
        f"mask '{path}' has mode {image.mode}, numbers of more than 8 bits, up to {most:g}; "
        + (
            "if these are classes, save it with 8: Image.fromarray(values.astype('uint8'))"
            if most <= IGNORE_INDEX
            else "classes are 0..254, and 255 = ignored. Does it hold instances (class * 1000 + number), or depths?"
        )
    )


def _opaque(image: Image.Image, path: Path) -> Image.Image:
    """A grey image without its alpha channel, which hides nothing."""
    grey, alpha = image.split()
    if alpha.getextrema()[0] != 255:
        raise _transparent(path)
    return grey


def _transparent(path: Path) -> DataError:
    return DataError(f"mask '{path}' has transparent pixels; save it without an alpha channel")


def grey(values: np.ndarray, path: Path, mode: str) -> np.ndarray:
    """Class numbers (H, W) where no colours are expected: an image with three equal channels is a grey one.

    Raises:
        DataError: its channels differ.
    """
    if values.ndim == 2:
        return values
    if (values != values[..., :1]).any():
        raise colours_refused(path, mode)
    return np.ascontiguousarray(values[..., 0])


def colours_refused(path: Path, mode: str) -> DataError:
    """The error for a mask that holds colours where class numbers are expected."""
    return DataError(
        f"mask '{path}' has mode {mode}; expected one class number per pixel (8-bit greyscale or palette PNG), not "
        "colours (ImageFolder reads masks of colours with the setting palette)"
    )


def size_of_photo(path: Path) -> tuple[int, int]:
    """Height and width of a photo by its first bytes, upright as `read_photo` gives it; 0, 0 if it cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 3)).save(f"{folder}/a.png")
        ...     size_of_photo(Path(folder) / "a.png")
        (3, 4)
    """
    try:
        with _opened(path, "photo") as image:
            # Pillow reads a whole PNG to look for an EXIF after its pixels, where hardly any file has it.
            turned = (image.format != "PNG" or "exif" in image.info) and _orientation(image) >= 5
            width, height = image.size
            if isinstance(image, TiffImageFile):  # whose size Pillow may have turned already
                width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            return (width, height) if turned else (height, width)
    except (DataError, ValueError):
        return 0, 0


@contextmanager
def _opened(path: Path, kind: str, content: bytes | None = None) -> Iterator[Image.Image]:
    """An image file, with every error of its reading as a `DataError` that names it."""
    try:
        with Image.open(existing(path) if content is None else io.BytesIO(content)) as image:
            yield image
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        found = _kind_of(path) if content is None and isinstance(error, UnidentifiedImageError) else None
        raise DataError(f"{kind} '{path}' cannot be read{f': it is {found}' if found else f' ({error})'}") from error


def _kind_of(path: Path) -> str | None:
    with path.open("rb") as file:
        return kind_of_start(file.read(512))


def _palette(image: Image.Image) -> np.ndarray:
    if image.palette is not None and image.palette.mode == "RGB":  # without a list of 768 numbers
        return np.frombuffer(image.palette.tobytes(), np.uint8).reshape(-1, 3)
    return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)


def _raw_mode(image: Image.Image) -> str:
    """The form of the values in the file, such as `L;4`, where Pillow's mode is that of the values in memory."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return image.mode
    arguments = tiles[0][3]
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else None
    return raw if isinstance(raw, str) else image.mode


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 is upright."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # a damaged EXIF makes Pillow raise nearly anything
        raise ValueError(f"its EXIF is damaged: {type(error).__name__}: {error}") from error
    return orientation if orientation in range(2, 9) else 1


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Pixels of a loaded image turned as its EXIF says. (What Pillow has turned itself, it no longer says.)"""
    orientation = _orientation(image)
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
