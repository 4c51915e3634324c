"""`KeptImages`: which adversarial images a run has, as PNG files or in shards."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_attack.common.shards import members
from lightning_attack.runs.names import image_name, image_path, images_folder, shard_files


class KeptImages:
    """The names of a run's adversarial images. One listing, and one look through each shard, in place of many looks.

    Args:
        folder: of the run.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     image_path(Path(folder), "a").parent.mkdir()
        ...     image_path(Path(folder), "a").touch()
        ...     kept = KeptImages(Path(folder))
        ...     "a" in kept, "b" in kept, bool(kept)
        (True, False, True)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        listed = os.walk(images_folder(folder))
        self._files = {Path(place) / name for place, _, files in listed for name in files if name.endswith(".png")}
        self._members = members(shard_files(folder))

    def __contains__(self, name: str) -> bool:
        if image_name(name) in self._members:
            return True
        path = image_path(self._folder, name)
        return path in self._files or path.is_file()

    def __bool__(self) -> bool:
        return bool(self._files or self._members)
