"""A folder of photos, with or without label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.files import PHOTO_SUFFIXES, read_mask, read_photo


class ImageFolder(SegmentationDataset):
    """All photos below a folder, in the order of their paths; label maps, if any, below another with the same names.

    Without masks the source network's prediction for the clean photo is the label: the attack then changes what the
    network says, and the clean mIoU of the source is 1.

    Args:
        root: folder of the photos; folders inside it are searched too.
        masks: folder of the label maps: for `root/a/b.jpg` the file `masks/a/b.png`, one class number per pixel,
            255 = ignored. None: no labels.
        classes: names of the classes in the order of their numbers; needed with `masks`.

    Raises:
        DataError: no photos, two photos of one name, a missing mask, masks without classes.
    """

    def __init__(self, root: str, masks: str | None = None, classes: Sequence[str] | None = None) -> None:
        if not Path(root).is_dir():
            raise DataError(f"no folder '{root}'")
        if masks is not None and not classes:
            raise DataError(
                "ImageFolder with masks needs classes: the names of the classes in the order of their numbers"
            )
        self.root, self.masks = root, masks
        self.classes = tuple(classes) if classes else None
        photos = sorted(path for path in Path(root).rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
        if not photos:
            raise DataError(f"no photos in '{root}' (looked for {', '.join(PHOTO_SUFFIXES)})")
        self._photos: dict[str, Path] = {}
        for path in photos:
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in self._photos:
                raise DataError(f"'{self._photos[name]}' and '{path}' would both be saved as '{name}.png'; rename one")
            self._photos[name] = path
        self._names = list(self._photos)
        missing = [name for name in self._names if masks is not None and not self._mask(name).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(photos)} photos have no mask; the first is '{self._mask(missing[0])}'"
            )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        name = self._names[index]
        mask = None if self.masks is None else read_mask(self._mask(name))
        return Scene(read_photo(self._photos[name]), mask, name)

    def _mask(self, name: str) -> Path:
        return Path(str(self.masks)) / f"{name}.png"
