"""How sure an mIoU is: intervals over images, and the paired difference of two attacks.

Of N images, N are drawn with replacement, many times (the bootstrap); all pixels of an image come together. The mIoU of
each draw is that of its summed counts, as in `metrics.iou`: the mean of the IoU over the classes that
occur in the labels, so a draw that loses a class averages over those that it has.

Quantiles of the draws themselves are too narrow where few images hold a class. So each draw's distance from the mIoU is
measured in standard errors of that draw (the studentised bootstrap, or bootstrap-t):

    t_d = (miou_d - miou) / max(se_d, se / 4)       interval = [miou - q_high(t) se, miou - q_low(t) se]

where se is the root of the summed squares of what each image contributes to first order (the infinitesimal jackknife).
Where an attack leaves a few hits in a few images, a draw that misses these has next to no mIoU and next to no spread;
divided by that, a distance of 2 points becomes an end at 91 (such lengths are known of bootstrap-t: A. B. Owen, "Better
bootstrap t confidence intervals for the mean", 2025, arXiv 2508.10083). So no draw counts as more than four times as
sure as the whole sample, and no end lies further away than four times as far as a draw: from 2 % up to 10 % at most. On
simulated photos these intervals hold the truth as often as without the bound or more often, and ends of a mIoU above
10 % hardly ever reach it.

A difference of two attacks has the same images in each draw, and so has what they have in common taken away. No end
lies beyond what can be: a mIoU is in [0, 1], and a difference is no larger than the intervals of its two sides allow.
Their measured mIoUs are no limit: where next to nothing is left, a drop is as uncertain as the mIoU that it is from.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lightning_attack.metrics.iou import iou, miou
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run, common_images

DRAWS, LEVEL, SEED = 2000, 0.95, 0
FEWEST = 5
"""Fewer images than these have no interval: too many of their draws are one image over and over."""
_BLOCK = 2**21  # draws x images that are looked at together
_MOST_KNOWN = 2**16
_known: dict[tuple[object, ...], Interval] = {}
"""Intervals by what they are of."""
_LARGE = 1e9  # stands for the t of a draw where no sample has any spread
_SUREST = 0.25
"""The least standard error of a draw, in those of the whole sample."""

_ROOM = 384 * 2**20
_blocks: OrderedDict[object, tuple[np.ndarray, np.ndarray]] = OrderedDict()
"""Of samples that were looked at lately what their draws gave; `_ROOM` bytes of it."""


class _Term(NamedTuple):
    """A sample of a sum: its factor, what it is known by, and its counts (images, 3, C) float64."""

    factor: float
    mark: tuple[object, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A figure and where it may lie.

    Attributes:
        value: the figure over all images.
        low: lower end; NaN where there are fewer than `FEWEST` images.
        high: upper end; likewise.
        images: how many images it rests on.
    """

    value: float
    low: float
    high: float
    images: int

    @property
    def significant(self) -> bool:
        """Of a difference: whether the interval excludes 0.

        Example:
            >>> Interval(-0.03, -0.04, -0.02, 48).significant, Interval(-0.03, -0.07, 0.01, 48).significant
            (True, False)
        """
        return self.low > 0 or self.high < 0

    def __neg__(self) -> Interval:
        """The interval of the figure with the other sign."""
        return Interval(-self.value, -self.high, -self.low, self.images)


def miou_interval(counts: np.ndarray, draws: int = DRAWS, level: float = LEVEL, seed: int = SEED) -> Interval:
    """The mIoU of the counts of images, in [0, 1], with its interval over images.

    Args:
        counts: hits, labels and predictions of each class in each image, (images, 3, C): see
            `metrics.iou.class_counts`.
        draws: how often images are drawn.
        level: the share of such intervals that hold the mIoU of the population that the images come from.
        seed: of the draws, which are the same for all figures over as many images.

    Raises:
        ValueError: these are no such counts, but confusion matrices, perhaps.

    Example:
        >>> image = [[3, 4], [4, 4], [3, 5]]                 # IoU 3 / (4 + 3 - 3) and 4 / (4 + 5 - 4)
        >>> same = miou_interval(np.array([image] * 5))      # no image differs from another
        >>> round(same.value, 3), round(same.low, 3), round(same.high, 3), same.images
        (0.775, 0.775, 0.775, 5)
    """
    return _studentised([(1.0, counts)], draws, level, seed)


def mean_interval(
    samples: Sequence[np.ndarray], draws: int = DRAWS, level: float = LEVEL, seed: int = SEED
) -> Interval:
    """As `miou_interval` for the mean of several mIoUs, such as of seeds, on the same images in the same order."""
    return _studentised([(1 / len(samples), sample) for sample in samples], draws, level, seed)


def difference_interval(
    first: np.ndarray, second: np.ndarray, draws: int = DRAWS, level: float = LEVEL, seed: int = SEED
) -> Interval:
    """The mIoU of `first` less that of `second`, in [-1, 1]; counts (images, 3, C) of the same images in one order.

    Raises:
        ValueError: the numbers of images or classes differ; or see `miou_interval`.

    Example:
        >>> good, bad = np.array([[[4, 4], [4, 4], [4, 4]]] * 3), np.array([[[4, 0], [4, 4], [8, 0]]] * 3)
        >>> difference_interval(bad, good).value    # IoU 4/8 and 0, against 1 and 1
        -0.75
    """
    if first.shape != second.shape:
        raise ValueError(f"counts {first.shape} and {second.shape} must be of the same images and classes")
    return _studentised([(1.0, first), (-1.0, second)], draws, level, seed)


def mean_difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = SEED,
) -> Interval:
    """As `difference_interval` for two means of mIoUs; all on the same images in the same order."""
    terms = [(sign / len(side), one) for sign, side in ((1, first), (-1, second)) for one in side]
    return _studentised(terms, draws, level, seed)


def paired_difference(
    run: Run | Sequence[Run],
    other: Run | Sequence[Run],
    target: str,
    draws: int = DRAWS,
    images: Iterable[str] | None = None,
) -> Interval:
    """The adversarial mIoU of a target in `run` less that in `other`, over the images that both have (by digest).

    Args:
        run: below 0, this attack is the stronger one; of several runs, such as of seeds, the mean mIoU counts.
        other: the one that it is compared with; likewise.
        target: name of the network; all runs must have scored it.
        draws: how often images are drawn.
        images: only these of them, as in `Run.images`.

    Raises:
        RunsError: no image in common, or classes that differ.
    """
    sides = [(one,) if isinstance(one, Run) else tuple(one) for one in (run, other)]
    every = [one for side in sides for one in side]
    names = " and ".join(f"'{one.folder}'" for one in every)
    if len({one.classes for one in every}) > 1:
        raise RunsError(f"{names} have different classes and cannot be compared")
    both = frozenset.intersection(*(one.scored(target) for one in every))
    common = common_images(every, both if images is None else both.intersection(images))
    if not common:
        raise RunsError(f"{names} have no image in common on which '{target}' was scored")
    first, second = ([one.counts(target, common)[:, 1] for one in side] for side in sides)
    return mean_difference(first, second, draws)


def _slopes(counts: np.ndarray) -> np.ndarray:
    """The derivative of the mIoU by each count, (..., 3, C)."""
    hits, labels, predictions = np.moveaxis(counts, -2, 0)
    occurs, union = labels > 0, labels + predictions - hits
    scale = np.divide(occurs, union * occurs.sum(-1, keepdims=True), out=np.zeros_like(union), where=occurs)
    values = np.where(occurs, iou(counts), 0.0)
    return np.stack([(1 + values) * scale, -values * scale, -values * scale], -2)


def _studentised(terms: Sequence[tuple[float, np.ndarray]], draws: int, level: float, seed: int) -> Interval:
    """The interval of a sum of mIoUs of the same images, each times a factor.

    A report asks for some of them often: every attack on a network has the same clean predictions.
    """
    chosen = []
    for factor, counts in terms:
        _check_counts(counts)
        content = np.ascontiguousarray(counts)
        mark = hashlib.blake2b(content.tobytes(), digest_size=16).digest(), content.shape, content.dtype.str
        chosen.append(_Term(factor, mark, counts.astype(np.float64)))
    return _known_interval(chosen, draws, level, seed)


def _known_interval(terms: Sequence[_Term], draws: int, level: float, seed: int) -> Interval:
    key = *((term.factor, term.mark) for term in terms), (draws, level, seed)
    if key not in _known:
        found = _computed(terms, draws, level, seed)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = found
    return _known[key]


def _check_counts(counts: np.ndarray) -> None:
    """Raise `ValueError` for what is not (images, 3, C) with hits that are among labels and predictions.

    There are fewer predictions than labels where a network abstains, and never more.
    """
    if counts.ndim != 3 or counts.shape[1] != 3:
        raise ValueError(f"counts {counts.shape} must be (images, 3, classes): see metrics.iou.class_counts")
    if (counts[:, 0] > counts[:, 1:].min(1)).any() or (counts[:, 1].sum(-1) < counts[:, 2].sum(-1)).any():
        raise ValueError("these are not hits, labels and predictions: see metrics.iou.class_counts")


def _computed(terms: Sequence[_Term], draws: int, level: float, seed: int) -> Interval:
    images = len(terms[0].counts)
    value, error = (float(part[0]) for part in _estimates(terms, np.ones((1, images)), "whole"))
    if images < FEWEST or not np.isfinite(value):
        return Interval(value, np.nan, np.nan, images)
    drawn, ratios = [], []
    for number, weights in enumerate(_resamples(images, draws, seed)):
        estimates, errors = _estimates(terms, weights, (draws, seed, number))
        distance, errors = estimates - value, np.maximum(errors, _SUREST * error)
        # Where not even the whole sample has a spread, all that a draw says is on which side it lies.
        ratio = np.divide(distance, errors, out=_LARGE * np.sign(distance), where=errors > 0)
        ratios.append(ratio.clip(-_LARGE, _LARGE))
        drawn.append(estimates)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = _quantiles(ratios, tails)
    lowest, highest = _quantiles(drawn, tails)
    least, most = _limits(terms, draws, level, seed)
    # From the upper tail comes the lower end.
    lower = lowest if high >= _LARGE else value - high * error
    upper = highest if low <= -_LARGE else value - low * error
    return Interval(value, max(lower, least), min(upper, most), images)


def _limits(terms: Sequence[_Term], draws: int, level: float, seed: int) -> tuple[float, float]:
    """The least and the most that the figure can be: of a difference, if each side is inside its interval."""
    added = [term for term in terms if term.factor > 0]
    taken = [term._replace(factor=-term.factor) for term in terms if term.factor < 0]
    top, deduction = (sum(term.factor for term in side) for side in (added, taken))
    if not taken:
        return 0.0, top
    one, other = (_known_interval(side, draws, level, seed) for side in (added, taken))
    return max(-other.high, one.low - deduction), min(one.high, top - other.low)


def _quantiles(blocks: Sequence[np.ndarray], tails: Sequence[float]) -> list[float]:
    known = np.concatenate(blocks)
    return np.quantile(known[np.isfinite(known)], tails).tolist()


def _estimates(terms: Sequence[_Term], weights: np.ndarray, block: object) -> tuple[np.ndarray, np.ndarray]:
    """Figure and standard error of each draw, whose weights (draws, images) say how often it has each image."""
    value, influence = np.zeros(len(weights)), np.zeros(weights.shape)
    for term in terms:
        own_value, own_influence = _of_term(term, weights, block)
        value += term.factor * own_value
        influence += term.factor * own_influence
    return value, np.sqrt((weights * influence**2).sum(1))


def _of_term(term: _Term, weights: np.ndarray, block: object) -> tuple[np.ndarray, np.ndarray]:
    """The mIoU of each draw of a block, and what each image contributes to it (draws, images); kept for a while.

    The drop and the difference to the baseline ask for what the two mIoUs have asked for.
    """
    key = term.mark, block
    if key not in _blocks:
        flat = term.counts.reshape(len(term.counts), -1)
        totals = (weights @ flat).reshape(len(weights), *term.counts.shape[1:])
        _blocks[key] = miou(totals), _slopes(totals).reshape(len(weights), -1) @ flat.T
        while len(_blocks) > 1 and sum(influence.nbytes for _, influence in _blocks.values()) > _ROOM:
            _blocks.popitem(last=False)
    _blocks.move_to_end(key)
    return _blocks[key]


def _resamples(images: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each draw has each image, (draws, images), in blocks that fit into memory."""
    weights = _weights(images, draws, seed)
    block = max(1, _BLOCK // images)
    for start in range(0, draws, block):
        yield weights[start : start + block].astype(np.float64)


@lru_cache(maxsize=4)
def _weights(images: int, draws: int, seed: int) -> np.ndarray:
    """The draws of `images` images, (draws, images); an image hardly ever comes 20 times, so bytes are enough."""
    generator = np.random.default_rng(seed)
    weights = np.empty((draws, images), np.uint8)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return weights
