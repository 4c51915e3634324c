"""A folder of photos, with or without label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.files import PHOTO_SUFFIXES, read_photo, size_of_photo
from lightning_attack.data.listing import existing, find_files, has_suffix, normalised
from lightning_attack.data.mask_values import MaskReader


class ImageFolder(SegmentationDataset):
    """All photos below a folder, in the order of their paths; label maps, if any, below another with the same names.

    Without masks the source network's prediction for the clean photo is the label: the attack then changes what the
    network says, and the clean mIoU of the source is 1.

    Links to folders are followed; hidden files and folders are not listed. Photos are turned as their EXIF orientation
    says, masks too. Indices of palette masks are class numbers, unless the palette has VOC's or Cityscapes' colours in
    another order: then the colours count, and a warning says so.

    Args:
        root: folder of the photos; folders inside it are searched too.
        masks: folder of the label maps: for `root/a/b.jpg` the file `masks/a/b.png`, one class number per pixel,
            255 = ignored. None: no labels.
        classes: names of the classes in the order of their numbers; needed with `masks`.
        palette: for masks that show classes as colours: `voc`, `cityscapes`, `ade20k`, `camvid`, a list with the colour
            of each class, or classes by colour such as `{"#800000": 1, "0,0,128": ignore}`. `index`: palette indices
            are class numbers, whatever their colours.
        label_map: class of each value that masks hold, such as `{0: 0, 255: 1}`; 255 as a class means ignored.
        label_offset: value of the first class; smaller values are ignored. 1 where 0 means unlabelled.
        ignore_index: a value that is ignored besides 255.
        mask_suffix: what follows the name of a photo in that of its mask, such as `_mask.png`; `.png` if not given.
        mask_pattern: path of a mask below `masks`, where a suffix does not say it: `{folder}/mask_{stem}.png`, or with
            `{name}`, which is folder and stem.
        white_level: value of white in photos with 16 bits per colour, such as 4095 for a camera's 12 bits; if not
            given, 65535, and photos that are suspiciously dark by it are refused.

    Raises:
        DataError: no photos, two photos of one name, a missing mask, masks without classes, a class named twice.
        ValueError: a setting is out of range, or two of them exclude each other.
    """

    concurrent = True

    def __init__(
        self,
        root: str,
        masks: str | None = None,
        classes: Sequence[str] | None = None,
        palette: str | list[list[int]] | dict[str, int | str] | None = None,
        label_map: dict[int, int] | None = None,
        label_offset: int = 0,
        ignore_index: int | None = None,
        mask_suffix: str | None = None,
        mask_pattern: str | None = None,
        white_level: int | None = None,
    ) -> None:
        if not Path(root).is_dir():
            raise DataError(f"no folder '{root}'")
        if masks is not None and not classes:
            raise DataError(
                "ImageFolder with masks needs classes: the names of the classes in the order of their numbers"
            )
        if twice := sorted(name for name, count in Counter(classes or ()).items() if count > 1):
            raise DataError(f"classes names '{twice[0]}' twice; tables tell classes apart by their names")
        if white_level is not None and not 1 <= white_level <= 65535:
            raise ValueError(f"white_level={white_level}: must be 1..65535, such as 4095 for 12 bits")
        if masks is not None and Path(masks).is_dir() and Path(masks).samefile(root):
            masks = root  # however it is spelled
        self.root, self.masks, self.white_level = root, masks, white_level
        self.classes = tuple(classes) if classes else None
        self._reader = MaskReader(self.classes or (), palette, label_map, label_offset, ignore_index)
        self.labels_settled = self._reader.settled
        self._pattern = _mask_pattern(mask_suffix, mask_pattern)
        if masks is None and (self.labels_settled or palette or mask_suffix or mask_pattern):
            raise ValueError(
                "palette, label_map, label_offset, ignore_index, mask_suffix and mask_pattern say how masks are found "
                "and read: give masks too"
            )
        photos = self._find()
        self._photos: dict[str, Path] = {}
        for path in photos:
            name = self._name(path)
            if name in self._photos:
                raise DataError(f"'{self._photos[name]}' and '{path}' would both be saved as '{name}.png'; rename one")
            self._photos[name] = path
        self._names = list(self._photos)
        missing = [name for name in self._names if masks is not None and not self._mask(name).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(photos)} photos have no mask; the first is '{self._mask(missing[0])}'"
                f"{self._found_instead(missing[0])}"
            )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        name = self._names[index]
        mask = None if self.masks is None else self._reader(self._mask(name))
        return Scene(read_photo(self._photos[name], self.white_level), mask, name)

    def photo_size(self, index: int) -> tuple[int, int]:
        return size_of_photo(self._photos[self._names[index]])

    def _find(self) -> list[Path]:
        """The photos; masks that lie among them are none."""
        is_photo, inside = has_suffix(PHOTO_SUFFIXES), None
        if self.masks is not None and Path(self.masks) != Path(self.root):
            inside = Path(self.masks)
        photos = find_files(self.root, is_photo, expected=", ".join(PHOTO_SUFFIXES), without=inside)
        if self.masks is not None and inside is None:
            masks = {mask for path in photos if (mask := self._mask(self._name(path))) != path}
            photos = [path for path in photos if path not in masks]
        if not photos:
            raise DataError(f"no photos in '{self.root}' (looked for {', '.join(PHOTO_SUFFIXES)})")
        return photos

    def _name(self, photo: Path) -> str:
        return normalised(photo.relative_to(self.root).with_suffix("").as_posix())

    def _found_instead(self, name: str) -> str:
        """The file that begins like the mask that is missing, with the setting that names it."""
        wanted = self._mask(name)
        stem = wanted.name.removesuffix(".png")
        for path in sorted(wanted.parent.glob("*")) if wanted.parent.is_dir() else ():
            rest = normalised(path.name).removeprefix(stem)
            if stem and rest != normalised(path.name) and not rest[:1].isalnum():
                return f"\nthere is '{path.name}': mask_suffix={rest} names such files"
        return ""

    def _mask(self, name: str) -> Path:
        path = PurePosixPath(name)
        folder = "" if path.parent == PurePosixPath() else path.parent.as_posix()
        return existing(Path(str(self.masks)) / self._pattern.format(name=name, stem=path.name, folder=folder or "."))


def _mask_pattern(suffix: str | None, pattern: str | None) -> str:
    """The path of a mask as a format of name, stem and folder."""
    if suffix is not None and pattern is not None:
        raise ValueError("mask_suffix and mask_pattern both say where masks lie; give one of them")
    if pattern is None:
        return "{name}" + (".png" if suffix is None else suffix.replace("{", "{{").replace("}", "}}"))
    try:
        one, other = (pattern.format(name=name, stem=name, folder="a") for name in "xy")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"mask_pattern='{pattern}': expected {{name}}, {{stem}} and {{folder}} only") from error
    if one == other:
        raise ValueError(f"mask_pattern='{pattern}' is the same for each photo; put {{name}} or {{stem}} into it")
    return pattern
