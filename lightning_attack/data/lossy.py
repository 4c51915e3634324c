"""`lossy_form`: whether a picture was compressed in a way that changes its numbers, which label maps do not survive."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

_ALWAYS = {"JPEG": "a JPEG", "MPO": "a JPEG", "AVIF": "an AVIF"}
"""Pillow's names of formats that lose something as a rule."""
_IN_TIFF = {"jpeg": "JPEG", "tiff_jpeg": "JPEG", "webp": "WebP"}
"""The same of compressions inside of TIFF."""
_JPEG_2000 = b"\xff\x4f\xff\x51"
"""How the data of a JPEG 2000 begins, wherever it lies in the file."""
_CODING, _WAVELET = b"\xff\x52", 13
"""The piece that says how it is coded, and the byte of it that is 0 for wavelets that round (9-7)."""


def lossy_form(image: Image.Image, path: Path) -> str | None:
    """What a picture is, where its compression changes numbers, such as `a JPEG`; None where it keeps them.

    Args:
        image: the picture, opened.
        path: its file.
    """
    if image.format == "TIFF":
        inside = _IN_TIFF.get(image.info.get("compression", ""))
        return inside and f"a TIFF compressed as {inside}"
    if image.format == "WEBP" and _has_lossy_chunk(path.read_bytes()):
        return "a lossy WebP"
    if image.format == "JPEG2000" and _rounds(path.read_bytes()):
        return "a lossy JPEG 2000"
    return _ALWAYS.get(image.format or "")


def _has_lossy_chunk(content: bytes) -> bool:
    """Whether a WebP holds an image of the lossy kind: after 12 bytes, pieces of a name, a length and that many bytes.

    Example:
        >>> _has_lossy_chunk(b"RIFF????WEBP" + b"ALPH" + bytes([1, 0, 0, 0, 9, 0]) + b"VP8 ")
        True
        >>> _has_lossy_chunk(b"RIFF????WEBP" + b"VP8L" + bytes([4, 0, 0, 0]) + b"VP8 ")
        False
    """
    place = 12
    while (name := content[place : place + 4]) and name != b"VP8 ":
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + length + length % 2
    return bool(name)


def _rounds(content: bytes) -> bool:
    """Whether a JPEG 2000 has wavelets that round."""
    coding = content.find(_CODING, content.find(_JPEG_2000))
    return coding >= 0 and content[coding + _WAVELET : coding + _WAVELET + 1] == b"\0"
