"""`Worth`: for which shapes of images a run's networks are worth rewriting, by counts that every machine agrees on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor

from lightning_attack.engine import BACKWARD_PRICE, FORWARD_PRICE, WORTH_COUNTING, Work, count_growth
from lightning_attack.models.probe import noise
from lightning_attack.models.wrapper import SegmentationModel

Shape = tuple[int, int]
"""Height and width of images."""
WORTH_REWRITING = 320 * 320
"""Pixels of an image from which networks are rewritten where nobody knows which images will come."""
SHAPES = 16
"""Most shapes that are rewritten because several images have them: as many as an engine keeps."""


class Expected:
    """The passes that will come in a run, of all its processes together.

    Args:
        images: by height and width of what networks are shown, how many such images the run has. Windows of a photo
            count one by one.
        attack: gives the backward passes of an attacked network for each image; called if it is needed.
        scoring: forward passes of each network for each image, in which it is scored.
    """

    def __init__(self, images: Mapping[Shape, int], attack: Callable[[], float], scoring: float) -> None:
        self.images, self.scoring, self._attack = dict(images), scoring, attack
        largest = sorted(self.images, key=lambda shape: (-self.images[shape] * shape[0] * shape[1], shape))
        self.kept = frozenset(largest[:SHAPES])

    @property
    def most_pixels(self) -> float:
        """Pixels of all passes together with images of one shape, at the most."""
        in_one = max((count * height * width for (height, width), count in self.images.items()), default=0)
        return in_one * max(self.attack, self.scoring)

    @cached_property
    def attack(self) -> float:
        """Backward passes of an attacked network for each image."""
        return self._attack()


class Worth:
    """Decides for each call of a network whether its engine shall rewrite the network for such images.

    Rewriting takes a second or more for each network and shape of images, as long as dozens of passes. So it is done
    where the passes that will come pay for it (`Expected`). Where they are not known, it is done for images of
    `WORTH_REWRITING` pixels or more. A last, smaller batch costs the same once more, which is not counted. What is
    decided depends on the run's photos, its attack and the networks, and neither on time nor on the order of images, on
    batches, or on processes: these must not change results.

    Args:
        probe_size: height and width of images that every network takes.
    """

    def __init__(self, probe_size: Shape) -> None:
        self._probe_size = probe_size
        self._expected: Expected | None = None
        self._attacked: Shape | None = None
        self._known: dict[tuple[SegmentationModel, Shape, Shape | None], bool] = {}

    def expect(self, expected: Expected | None, parts: Iterable[SegmentationModel] = ()) -> None:
        """From now on these passes will come, of these networks; None: nobody knows."""
        self._expected = expected
        self._known.clear()
        parts = list(parts)
        if not parts or expected is None or expected.most_pixels < WORTH_COUNTING:
            return
        for part in parts:  # now, and not at their first pass: an attack may be looking at what runs in it
            work_of(part, self._probe_size)

    @contextmanager
    def attacking(self, images: Tensor | None) -> Iterator[None]:
        """Inside the `with` block these images are attacked; networks may be shown larger ones made of them."""
        self._attacked = None if images is None else _shape(images)
        try:
            yield
        finally:
            self._attacked = None

    def __call__(self, part: SegmentationModel, images: Tensor) -> bool:
        """Whether this network is worth rewriting for images of this shape."""
        shape = _shape(images)
        if self._expected is None:
            return shape[0] * shape[1] >= WORTH_REWRITING
        key = part, shape, self._attacked
        if key not in self._known:
            self._known[key] = self._decide(self._expected, part, shape)
        return self._known[key]

    def _decide(self, expected: Expected, part: SegmentationModel, shape: Shape) -> bool:
        if expected.most_pixels < WORTH_COUNTING:  # nothing was counted for this run, though perhaps for another
            return False
        if self._attacked is None:
            several = expected.images.get(shape, 0) if shape in expected.kept else 0
            return self._repays(part, shape, several * expected.scoring, FORWARD_PRICE)
        asked = shape if shape in expected.images else self._attacked
        several = expected.images.get(asked, 1) if asked in expected.kept else 1
        return self._repays(part, shape, several * expected.attack, BACKWARD_PRICE)

    def _repays(self, part: SegmentationModel, shape: Shape, passes: float, price: float) -> bool:
        pixels = shape[0] * shape[1]
        if passes * pixels < WORTH_COUNTING:
            return False
        work: Work | None = part.__dict__.get("_work", {}).get(self._probe_size)
        return work is not None and work.repays(pixels, passes, price)


def work_of(part: SegmentationModel, size: Shape) -> Work | None:
    """What a network that holds no others computes, counted once for images of this size and of twice that.

    None if it cannot be counted.
    """
    known: dict[Shape, Work | None] = part.__dict__.setdefault("_work", {})  # for other runs of the network, too
    if size not in known:
        sizes = size, (2 * size[0], 2 * size[1])
        small, large = (noise(one).to(part.mean.device).expand(part.least_batch, -1, -1, -1) for one in sizes)
        known[size] = count_growth(part.outputs, small, large)
    return known[size]


def _shape(images: Tensor) -> Shape:
    return images.shape[-2], images.shape[-1]
