"""What the masks of a whole data set hold, seen while they are read before a run: suspicious where no single one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import DataError, Scene, SegmentationDataset, values_in
from lightning_attack.data.in_threads import in_threads
from lightning_attack.data.notices import warn
from lightning_attack.data.scene_form import check_classes, one_kind, read_scene

Progress = Callable[[str, int, int], None] | None


class Survey:
    """Sees every scene of a run once, and says at the end what is wrong with all of them together.

    Several threads may show it scenes at once: what it keeps does not depend on their order.
    """

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._repeated: list[tuple[str, int, int]] = []
        self._labels = np.zeros(256, bool)
        self._masks = 0
        self._first: dict[bool, tuple[int, str]] = {}  # of those with a mask, and of those without
        self._solid = False
        self._lock = Lock()

    def see(self, scene: Scene, index: int) -> None:
        """Take note of a scene as it was read, and of its position in the data set."""
        values = None if scene.mask is None else values_in(np.asarray(scene.mask, np.uint8))
        with self._lock:
            other = self._positions.setdefault(scene.name, index)
            if other != index:
                self._repeated.append((scene.name, min(other, index), max(other, index)))
            kind = values is not None
            self._first[kind] = min(self._first.get(kind, (index, scene.name)), (index, scene.name))
            if values is None or scene.mask is None:
                return
            self._masks += 1
            self._labels[values] = True
            if not self._solid and not self._labels[1:IGNORE_INDEX].any():
                self._solid = _has_solid(scene.mask)

    def finish(self, dataset: SegmentationDataset, key: str) -> None:
        """Say what all masks show together.

        Args:
            dataset: to which they belong.
            key: its setting, such as `data.dataset`.

        Raises:
            DataError: names occur twice, some photos have masks and others have none, masks are of another form than
                they are read as.
        """
        if self._repeated:
            name, first, second = min(self._repeated, key=lambda one: one[1:])
            more = f" (and {len(self._repeated) - 1} more share names)" if len(self._repeated) > 1 else ""
            raise DataError(
                f"{key}: photos {first} and {second} are both named '{name}'{more}; adversarial images are saved under "
                "the names of their photos, so these must be unique"
            )
        one_kind({name: has for has, (_, name) in self._first.items()})
        if not self._masks or dataset.classes is None:
            return
        dataset.check_labels()
        seen = [int(label) for label in np.flatnonzero(self._labels) if label != IGNORE_INDEX]
        if not seen:
            warn(f"{key}: no pixel in the masks of {self._masks} photos is labelled, so there is nothing to score")
        elif not dataset.labels_settled:
            self._suspect(dataset.classes, seen, key)

    def _suspect(self, classes: Sequence[str], seen: list[int], key: str) -> None:
        if self._solid and seen == [0] and len(classes) > 1:
            raise DataError(
                f"{key}: all masks hold 0 and 255 only, and 255 covers whole areas: are these masks of an object in 0 "
                f"and 255? 255 is read as 'ignored', so '{classes[1]}' would occur nowhere. ImageFolder reads them "
                "with label_map: {0: 0, 255: 1} (if 255 does mean ignored, with ignore_index: 255)"
            )
        if len(seen) == 1 < min(len(classes), self._masks):
            warn(
                f"{key}: every labelled pixel in the masks of {self._masks} photos is class {seen[0]}, "
                f"'{classes[seen[0]]}', of {len(classes)}; were the masks emptied, or read with the wrong settings?"
            )
        if 0 not in seen and len(seen) > 1:
            warn(
                f"{key}: no mask of {self._masks} holds class 0, '{classes[0]}', but others up to {seen[-1]}, "
                f"'{classes[seen[-1]]}'; if the classes in the masks count from 1, ImageFolder reads them with "
                "label_offset: 1"
            )


def survey_all(dataset: SegmentationDataset, key: str, progress: Progress = None) -> set[tuple[int, int]]:
    """Read every scene of a data set once and check what one shows and what all show.

    Args:
        dataset: the scenes.
        key: its setting, for messages.
        progress: called after each scene with `key`, the scenes read, and their number.

    Returns:
        The sizes of the photos, height and width.

    Raises:
        DataError: a photo or mask cannot be used, or all together look wrong.
    """
    survey, sizes = Survey(), set()
    check_classes(dataset.classes, key)
    threads = None if dataset.concurrent else 1
    for index, scene in enumerate(in_threads(lambda index: read_scene(dataset, index), len(dataset), threads)):
        survey.see(scene, index)
        sizes.add(scene.image.shape[:2])
        if progress is not None:
            progress(key, index + 1, len(dataset))
    survey.finish(dataset, key)
    return sizes


def _has_solid(mask: np.ndarray) -> bool:
    """Whether 255 fills a square of a sixteenth of the shorter side: objects do, borders do not."""
    side = max(2, min(mask.shape) // 16)
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    squares = mask[: rows * side, : columns * side].reshape(rows, side, columns, side) == IGNORE_INDEX
    return bool(squares.all((1, 3)).any())
