"""`Gallery`: files of adversarial images that were made elsewhere, and which image belongs to which photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attack.common.shards import Member, members
from lightning_attack.data.arrays import ARRAY_SUFFIXES, ArrayFile
from lightning_attack.data.base import DataError
from lightning_attack.data.files import PHOTO_SUFFIXES, read_photo
from lightning_attack.data.listing import find_files, has_suffix, normalised

SHARD = ".tar"


class MissingError(DataError):
    """There is no adversarial image for the photo `name`."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(f"photo '{name}' has no adversarial image in '{root}'")
        self.name = name


class Picture(NamedTuple):
    """One image, not yet read: its description for messages, shape, type, and a function that reads it."""

    said: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


class Gallery:
    """The adversarial images of a run: a folder of files with the names of the photos, or one file with all of them.

    In a folder the image of the photo `a/b` is `a/b` with any of the suffixes of photos or of arrays. Photos may also
    lie in tar files (shards) there; of two of one name that in the later shard counts. One other file holds
    all images under one key (torchattacks calls it `adv_inputs`), in the order of the run's photos or of the whole data
    set; or each under the name of its photo.

    Args:
        root: the folder or the file.

    Raises:
        DataError: there is no such place, or two files are for one photo.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._all = ArrayFile(self.root) if self.root.is_file() and self.root.suffix.lower() in ARRAY_SUFFIXES else None
        self._files: dict[str, Path] = {}
        self._members: dict[Path, Member] = {}  # of those that lie in shards
        if self._all is not None:
            return
        if self.root.is_file() and self.root.suffix.lower() == SHARD:
            self._take_shards([self.root])
            return
        if not self.root.is_dir():
            raise DataError(
                f"data.adversarial_root: no folder '{root}', and no file with all images "
                f"({', '.join((*ARRAY_SUFFIXES, SHARD))})"
            )
        suffixes = (*PHOTO_SUFFIXES, *ARRAY_SUFFIXES, SHARD)
        found = find_files(self.root, has_suffix(suffixes), expected=", ".join(suffixes))
        for path in found:
            if path.suffix.lower() != SHARD:
                self._take(path.relative_to(self.root), path)
        self._take_shards([path for path in found if path.suffix.lower() == SHARD])

    def _take(self, inside: Path, path: Path) -> None:
        """A file of an image, by its path in the folder of all."""
        name = normalised(inside.with_suffix("").as_posix())
        if name in self._files:
            raise DataError(f"'{self._files[name]}' and '{path}' are both for the photo '{name}'; remove one")
        self._files[name] = path

    def _take_shards(self, shards: Sequence[Path]) -> None:
        is_photo = has_suffix(PHOTO_SUFFIXES)
        for name, member in members(shards).items():
            if is_photo(Path(name)):
                self._members[member.shard / name] = member
                self._take(Path(name), member.shard / name)

    def picture(self, name: str, index: int, order: Sequence[int], total: int) -> Picture:
        """The image of a photo.

        Args:
            name: of the photo.
            index: its position in the data set.
            order: the positions of all photos of the run.
            total: how many photos the data set has.

        Raises:
            MissingError: there is none.
            DataError: it cannot be told which it is.
        """
        if self._all is not None:
            return self._of_all(self._all, name, index, order, total)
        if normalised(name) not in self._files:
            raise MissingError(name, self.root)
        path = self._files[normalised(name)]
        if path.suffix.lower() in ARRAY_SUFFIXES:
            arrays = ArrayFile(path)
            key = _images_key(arrays, dimensions=(3, 4))
            form = arrays.forms[key]
            return Picture(f"'{path}'", form.shape, form.dtype, lambda: arrays.read(key))
        content = self._members[path].read() if path in self._members else None
        photo = torch.from_numpy(read_photo(path, content=content))
        return Picture(f"'{path}'", tuple(photo.shape), "uint8", lambda: photo)

    def _of_all(self, arrays: ArrayFile, name: str, index: int, order: Sequence[int], total: int) -> Picture:
        if name in arrays.forms:
            form = arrays.forms[name]
            return Picture(f"'{name}' in '{self.root}'", form.shape, form.dtype, lambda: arrays.read(name))
        if {len(form.shape) for form in arrays.forms.values() if 3 in form.shape} == {3}:
            raise MissingError(name, self.root)  # images by name, and none of this one
        key = _images_key(arrays, dimensions=(4,))
        form = arrays.forms[key]
        count = form.shape[0]
        if count not in (len(order), total):
            raise DataError(
                f"'{self.root}' holds {count} images, but the run has {len(order)} photos and the data set {total}; "
                "images without names must be as many (data.limit and data.every choose photos)"
            )
        place = order.index(index) if count == len(order) else index
        said = f"number {place} of '{self.root}'"
        return Picture(said, form.shape[1:], form.dtype, lambda: arrays.read(key)[place])

    def missing(self, names: Sequence[str], total: int) -> DataError:
        """The error that names photos without an image."""
        shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
        there = [*self._files] if self._all is None else [*self._all.forms]
        found = f"there are {len(there)} images, the first is '{there[0]}'" if there else "there are no images"
        return DataError(
            f"{len(names)} of {total} photos have no adversarial image in '{self.root}': {shown}; {found}. Images have "
            f"the names of their photos (such as '{names[0]}.png'); --on_error=skip leaves out what has none"
        )


def _images_key(arrays: ArrayFile, dimensions: Sequence[int]) -> str:
    """Key of the array that holds the images: the only one of that form, or of several the only one named `adv...`."""
    fitting = [key for key, form in arrays.forms.items() if len(form.shape) in dimensions and 3 in form.shape]
    named = [key for key in fitting if key.lower().startswith(("adv", "x_adv"))]
    for chosen in (fitting, named):
        if len(chosen) == 1:
            return chosen[0]
    there = ", ".join(f"{key} {'x'.join(map(str, form.shape))}" for key, form in list(arrays.forms.items())[:6])
    raise DataError(
        f"'{arrays.path}' has {len(fitting) or 'no'} arrays that could be the images ({there or 'it is empty'}); "
        "name the one that is meant 'adv_inputs', (N, 3, H, W)"
    )
