"""Intervals against a second, slow computation, and against populations whose mIoU is known."""

import numpy as np
import pytest
import torch

from lightning_attack.metrics import SegmentationScores
from lightning_attack.metrics.iou import class_counts
from lightning_attack.metrics.iou import miou as miou_of_counts
from lightning_attack.report import intervals, paired_difference, read_run
from lightning_attack.runs.errors import RunsError
from tests.runs.made import make_run, matrices, of_class


def miou_interval(confusions, **arguments):
    return intervals.miou_interval(of_class(confusions), **arguments)


def difference_interval(first, second, **arguments):
    return intervals.difference_interval(of_class(first), of_class(second), **arguments)


def miou(confusions):
    return float(miou_of_counts(class_counts(confusions.sum(0))))


def population(generator, images, classes):
    """Confusion matrices of a clean and two attacked predictions, (3, images, C, C), as photos give them.

    A photo has some of the classes, in very different sizes; how much of each is right depends on photo and class.
    """
    present = generator.random((images, classes)) < 0.6
    present[:, 0] = True
    area = np.where(present, generator.lognormal(0, 1, (images, classes)), 0)
    area = np.round(10000 * area / area.sum(1, keepdims=True))
    easy = generator.normal(size=(images, 1)) + 0.8 * generator.normal(size=(images, classes))
    harder = easy + 0.5 * generator.normal(size=(images, classes))
    made = []
    for ease in (2 + easy, 0.5 + easy, 0.2 + harder):
        hits = np.round(area / (1 + np.exp(-ease)))
        matrix = np.zeros((images, classes, classes), np.int64)
        to = (np.arange(classes) + 1) % classes
        matrix[:, np.arange(classes), np.arange(classes)] = hits
        matrix[:, np.arange(classes), to] = area - hits
        made.append(matrix)
    return np.stack(made)


def test_intervals_hold_the_mious_of_the_population(monkeypatch):
    """At 48 photos 95 % intervals of mIoU, and of the paired difference of two attacks, miss in 2 to 8 of 100 cases."""
    monkeypatch.setattr(intervals, "_ROOM", 0)  # a thousand samples, none of which comes again
    generator = np.random.default_rng(1)
    _, first, second = population(generator, 20000, 8)
    true, true_difference = miou(first), miou(first) - miou(second)
    assert 0.01 < true_difference < 0.1
    held, held_difference, found_real = 0, 0, 0
    for repeat in range(500):
        drawn = generator.integers(0, len(first), 48)
        interval = miou_interval(first[drawn], draws=500, seed=repeat % 3)
        difference = difference_interval(first[drawn], second[drawn], draws=500, seed=repeat % 3)
        held += interval.low <= true <= interval.high
        held_difference += difference.low <= true_difference <= difference.high
        found_real += difference.significant
    assert 0.92 <= held / 500 <= 0.98
    assert 0.92 <= held_difference / 500 <= 0.98
    assert found_real > 100, "intervals that hold everything because they are wide would be of no use"


def slow_interval(first, second, draws, seed):
    """The definition, draw by draw: mIoU from the metric of the runs, slopes by small steps."""

    def value(counts):
        scores = [SegmentationScores.of(torch.from_numpy(one)).compute()["miou"].item() for one in counts]
        return scores[0] - scores[1]

    both = np.stack([first, second], 1)
    images, scale = len(first), 10**6  # counts are whole numbers, so slopes are taken on enlarged ones

    def error(weights):
        total = (weights[:, None, None, None] * both).sum(0) * scale
        moves = [(value(total + one) - value(total - one)) / 2 * scale for one in both]
        return np.sqrt(sum(weight * move**2 for weight, move in zip(weights, moves, strict=True)))

    generator = np.random.default_rng(seed)
    whole, ratios = value(both.sum(0)), []
    for _ in range(draws):
        weights = np.bincount(generator.integers(0, images, images), minlength=images)
        ratios.append((value((weights[:, None, None, None] * both).sum(0)) - whole) / error(weights))
    low, high = np.quantile(ratios, [0.025, 0.975])
    here = error(np.ones(images, int))
    return whole, whole - high * here, whole - low * here


def test_interval_is_the_one_that_the_definition_gives():
    _, first, second = population(np.random.default_rng(5), 12, 4)
    for matrix in (first, second):
        matrix[3:, 2] = 0  # a class that most draws have few images of, and some none
        matrix[:, 3] = 0  # one without labels
    interval = difference_interval(first, second, draws=100, seed=3)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        slow_interval(first, second, 100, 3), rel=1e-4
    )


def test_miou_is_that_of_the_runs():
    _, first, _ = population(np.random.default_rng(2), 6, 5)
    first[:, 4] = 0
    first[0, 0, 4] = 7  # predicted, never a label
    assert miou(first) == pytest.approx(SegmentationScores.of(torch.from_numpy(first.sum(0))).compute()["miou"].item())


def test_intervals_hold_and_stay_narrow_where_an_attack_leaves_next_to_nothing(monkeypatch):
    """One image in five has hits, of very different size: some draws have nearly none of them, and no spread."""
    monkeypatch.setattr(intervals, "_ROOM", 0)
    generator = np.random.default_rng(5)
    images = 20000
    hit = generator.random(images) < 0.2
    hits = np.round(50000 * np.where(hit, np.minimum(0.9, 0.2 * generator.lognormal(0, 1.2, images)), 0))
    counts = np.zeros((images, 3, 2))  # all other pixels are taken for those of the other class
    counts[:, 0, 0], counts[:, 1] = hits, (50000, 15000)
    counts[:, 2] = np.stack([hits + 15000, 50000 - hits], 1)
    true = float(miou_of_counts(counts.sum(0)))
    assert 0.02 < true < 0.03
    drawn = [counts[generator.integers(0, images, 32)] for _ in range(200)]
    found = [intervals.miou_interval(one, draws=500) for one in drawn]
    assert 0.9 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.98
    assert max(one.high / one.value for one in found) <= 5.0001, "four times as far as a draw can lie"
    assert np.quantile([one.high - one.low for one in found], 0.95) < 0.14


def test_a_drop_to_next_to_nothing_is_as_uncertain_as_the_clean_miou(monkeypatch):
    """The population's drop may be larger than all that these few images have to lose."""
    monkeypatch.setattr(intervals, "_ROOM", 0)
    generator = np.random.default_rng(2)
    clean = population(generator, 20000, 8)[0]
    attacked = clean // 30
    attacked[:, np.arange(8), (np.arange(8) + 1) % 8] += (clean - attacked).sum(2)
    true = miou(clean) - miou(attacked)
    assert miou(attacked) < 0.03
    drawn = [generator.integers(0, len(clean), 24) for _ in range(150)]
    found = [difference_interval(clean[one], attacked[one], draws=300) for one in drawn]
    assert 0.9 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.99


def test_what_two_attacks_share_is_no_uncertainty():
    """Photos differ by far more than the attacks do: alone each is uncertain, their difference is not."""
    counts = np.stack([np.array([[n, 1000 - n], [0, 1000]]) for n in range(100, 900, 40)])
    better = counts.copy()
    better[:, 0, 0] -= 20
    better[:, 0, 1] += 20
    one, other = miou_interval(counts), miou_interval(better)
    assert one.low < other.value < one.high
    assert difference_interval(better, counts).significant


def test_hits_in_one_image_only():
    """A third of the draws lack it and have no spread at all: they count as four times as sure as the sample."""
    matrices = np.zeros((20, 2, 2), np.int64)
    matrices[:, 0, 1] = matrices[:, 1, 0] = 50
    matrices[3] = [[10, 40], [40, 10]]
    found = miou_interval(matrices)
    assert found.value == pytest.approx(10 / 1990)
    assert (found.low, found.high) == (0, pytest.approx(5 * 10 / 1990))
    nothing = miou_interval(matrices * (1 - np.eye(2, dtype=np.int64)))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_no_end_lies_beyond_what_can_be():
    """Few photos, and classes that only one or two of them have."""
    generator = np.random.default_rng(0)
    beyond = 0
    for _ in range(60):
        _, first, second = population(generator, 8, 8)
        first[:-1, 1:], second[:-2, 2:] = 0, 0  # classes of one photo, and of two
        found = difference_interval(first, second, draws=200)
        one, other = miou_interval(first, draws=200), miou_interval(second, draws=200)
        least, most = max(-other.high, one.low - 1), min(one.high, 1 - other.low)
        assert least <= found.low <= found.value <= found.high <= most
        beyond += found.low == least or found.high == most
        assert 0 <= one.low <= one.value <= one.high <= 1
    assert beyond, "some would have been beyond"


def test_too_little_for_an_interval():
    one = miou_interval(np.array([[[3, 1], [0, 4]]]))
    assert (one.value, one.images) == (pytest.approx(0.775), 1)
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(miou_interval(matrices(4)[:, 0, 1]).low)
    assert not np.isnan(miou_interval(matrices(5)[:, 0, 1]).low)
    assert not difference_interval(np.array([[[0, 4], [0, 4]]]), np.array([[[4, 0], [0, 4]]])).significant
    none = miou_interval(np.zeros((5, 2, 2), int))
    assert np.isnan([none.value, none.low, none.high]).all()
    same = difference_interval(*[matrices(5)[:, 0, 1]] * 2)
    assert (same.value, same.low, same.high, same.significant) == (0, 0, 0, False)


def test_pairs_are_made_by_digest_and_not_by_place(tmp_path):
    counts = matrices(20, spread=0.3)
    weaker = counts.copy()
    weaker[:, :, 1] = counts[:, :, 0]
    names = [f"photo{number}" for number in range(20)]
    first = read_run(make_run(tmp_path / "first", counts=counts, names=names))
    turned = read_run(make_run(tmp_path / "turned", counts=weaker[::-1], names=names[::-1]))
    later = read_run(make_run(tmp_path / "later", counts=weaker[5:], names=names[5:], failed=[(0, "net_b")]))
    direct = difference_interval(counts[:, 1, 1], weaker[:, 1, 1])
    assert paired_difference(first, turned, "net_b") == direct
    assert paired_difference(turned, first, "net_b").value == pytest.approx(-direct.value)
    assert paired_difference(first, later, "net_b") == difference_interval(counts[6:, 1, 1], weaker[6:, 1, 1])
    strangers = read_run(make_run(tmp_path / "strangers", names=[f"other{number}" for number in range(24)]))
    with pytest.raises(RunsError, match=r"first.*strangers.*no image in common"):
        paired_difference(first, strangers, "net_b")
