"""`check_one_picture`: files of several pictures, of which readers would take the first one without a word."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lightning_attack.data.base import DataError


def check_one_picture(image: Image.Image, path: Path, kind: str) -> None:
    """Raise `DataError` for a stack or an animation; smaller pictures beside the first one are previews of it.

    Args:
        image: the file, opened.
        path: the file.
        kind: `photo` or `mask`, for the message.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # a JPEG with its preview, or with another view for 3D
        return
    first, same = image.size, 1
    for number in range(1, count):
        image.seek(number)
        same += image.size == first
    image.seek(0)
    if same > 1:
        raise DataError(f"{kind} '{path}' holds {same} pictures of one size; save each as a file of its own")
