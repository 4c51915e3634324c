"""Reading the photos of a run before they are attacked: a broken one is found before its run, or early in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, get_args

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.adversarial import BudgetError, together
from lightning_attack.data.adversarial_files import Gallery, MissingError
from lightning_attack.data.adversarial_survey import AdversarialSurvey
from lightning_attack.data.base import DataError, SegmentationDataset
from lightning_attack.data.in_threads import in_threads
from lightning_attack.data.notices import warn
from lightning_attack.data.scenes import Item, one_size
from lightning_attack.data.survey import Survey

When = Literal["before", "ahead", "none"]
MOST_BEFORE = 2000
"""Photos that are all read before a run by default; of more, the rest is read while the first are attacked."""
SAMPLE = 64
"""Photos, spread over the data set, that are read before a run whose others are read while it goes on."""


def when_to_check(when: str | None, photos: int, at_once: bool) -> When:
    """When the photos of a run are read once: `before` it, `ahead` of the attack, or `none` of them.

    Args:
        when: the setting; None chooses.
        photos: number of photos of the run.
        at_once: whether all are read before the run unless none is: their adversarial images were made elsewhere, so
            that scoring takes little longer than reading, or the data set has one reader at a time.

    Raises:
        ValueError: `when` is no such word.

    Example:
        >>> when_to_check(None, 1000, False), when_to_check(None, 50_000, False), when_to_check(None, 50_000, True)
        ('before', 'ahead', 'before')
    """
    if when is None:
        return "before" if at_once or photos <= MOST_BEFORE else "ahead"
    for word in get_args(When):
        if when == word:
            return "before" if at_once and word == "ahead" else word
    raise ValueError(f"check={when!r}: must be one of {', '.join(get_args(When))}, or null")


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, the first and the last among them, evenly spread.

    Example:
        >>> spread(3, 64), spread(101, 3)
        ([0, 1, 2], [0, 50, 100])
    """
    return [*range(count)] if count <= most else [number * (count - 1) // (most - 1) for number in range(most)]


class PhotoCheck:
    """What is looked at in the photos of a run, one after another and all together.

    Args:
        dataset: to which they belong.
        survey: has seen each scene that was read.
        num_classes: number of classes of the networks, for the wanted classes; None = these are not checked.
        target_masks: the folder of these, for messages.
        batch_size: photos in a batch; those of one must have one size.
        gallery: adversarial images that were made elsewhere.
        pairs: has seen the images of these that were read.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        survey: Survey,
        num_classes: int | None,
        target_masks: str | None,
        batch_size: int,
        gallery: Gallery | None = None,
        pairs: AdversarialSurvey | None = None,
    ) -> None:
        self.dataset, self.survey, self.batch_size = dataset, survey, batch_size
        self.num_classes, self.target_masks = num_classes, target_masks
        self.gallery, self.pairs = gallery, pairs
        self._sizes: set[tuple[int, int]] = set()

    def all(self, read: Callable[[int], Item], count: int, stop: threading.Event | None = None) -> None:
        """Read items 0 to `count` - 1.

        Args:
            read: gives an item.
            count: number of items.
            stop: read no further once it is set; reading in the background takes one thread, else as many as help.

        Raises:
            DataError: a photo, mask or adversarial image cannot be used, photos of a batch differ in size, a wanted
                class is unknown to the networks, or all masks together look wrong.
        """
        unpaired: list[MissingError | BudgetError] = []

        def item(number: int) -> Item | MissingError | BudgetError:
            try:
                return read(number)
            except (MissingError, BudgetError) as error:  # collected, for one message that counts them
                return error

        alone = stop is not None or self.gallery is not None or not self.dataset.concurrent
        for found in in_threads(item, count, 1 if alone else None):
            if stop is not None and stop.is_set():
                return
            if isinstance(found, MissingError | BudgetError):
                unpaired.append(found)
            elif "error" not in found:
                self._one(found)
        if self.pairs is not None:
            self.pairs.finish()  # before the budget: what is in another order exceeds it too
        if unpaired and self.gallery is not None:
            raise together(unpaired, self.gallery, count)
        self.survey.finish(self.dataset, "data.dataset")
        if self.batch_size > 1:
            one_size(self._sizes)

    def _one(self, item: Item) -> None:
        self._sizes.add((item["image"].shape[-2], item["image"].shape[-1]))
        if self.num_classes is None or "target_mask" not in item:
            return
        wanted = item["target_mask"][item["target_mask"] != IGNORE_INDEX]
        if wanted.numel() and int(wanted.max()) >= self.num_classes:
            raise DataError(
                f"mask '{self.target_masks}/{item['name']}.png' wants the class {int(wanted.max())}, but the "
                f"networks have the classes 0..{self.num_classes - 1} (and {IGNORE_INDEX} = none wanted)"
            )


class CheckAhead:
    """A thread that checks the photos of a process while the first of them are attacked.

    Args:
        check: what is looked at.
        read: gives an item.
        count: number of items.
    """

    def __init__(self, check: PhotoCheck, read: Callable[[int], Item], count: int) -> None:
        self._work = check, read, count
        self._stop = threading.Event()
        self._found: DataError | None = None
        self._thread = threading.Thread(target=self._run, name="photo check", daemon=True)

    def raise_found(self) -> None:
        """Start, if that has not happened; raise what was found so far.

        Raises:
            DataError: see `PhotoCheck.all`.
        """
        if self._thread.ident is None:  # not earlier: workers that read photos are forked before the first batch
            self._thread.start()
        if self._found is not None:
            found, self._found = self._found, None
            raise found

    def close(self) -> None:
        """End the thread. What it found after the last batch is only said: all photos are attacked by then."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._found is not None:
            warn(str(self._found))

    def _run(self) -> None:
        check, read, count = self._work
        try:
            check.all(read, count, self._stop)
        except DataError as error:
            self._found = error
        except OSError as error:
            self._found = DataError(f"a photo cannot be read: {error}")
