"""`WorstCase`: no result is worse than any of its parts'."""

from dataclasses import replace

import pytest
import torch

from lightning_attack.attacks.base import Attack, NoAttack
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.norms import L2, Linf
from lightning_attack.attacks.objectives.base import CrossEntropy, SegPGD
from lightning_attack.attacks.wrappers.worst_case import WorstCase
from tests.attacks.toys import (
    BALL,
    CLASSES,
    PIXELS,
    curved,
    half_right,
    pgd,
    scene,
    unfooled,
)


def miou(predictions, labels):
    scores = []
    for c in range(CLASSES):
        if (labels == c).any():
            both = ((predictions == c) & (labels == c)).sum()
            either = ((predictions == c) & (labels != 255) | (labels == c)).sum()
            scores.append(float(both) / float(either))
    return sum(scores) / len(scores)


def parts():
    return [
        pgd(2, random_start=True, name="a"),
        pgd(3, SegPGD(), random_start=True, name="b"),
        pgd(1, step_size=PIXELS, name="c"),
        APGD(CrossEntropy(), BALL, 6),
    ]


@pytest.mark.parametrize("targeted", [False, True])
def test_worst_case_by_accuracy_is_the_minimum(targeted):
    model, (images, labels) = curved(), scene(6, 10, 10)
    labels = half_right(model, images, labels)
    seeds = list(range(6))
    worst = WorstCase(parts())(model, images, labels, seeds, targeted=targeted)
    alone = torch.stack([part(model, images, labels, seeds, targeted=targeted) for part in parts()])
    counts = torch.stack([unfooled(model, result, labels, targeted) for result in alone])
    assert torch.equal(unfooled(model, worst, labels, targeted), counts.amin(0))
    assert len(set(counts.argmin(0).tolist())) > 1, "several parts must win for the test to mean something"
    for i, winner in enumerate(counts.argmin(0).tolist()):
        assert torch.equal(worst[i], alone[winner, i])


@pytest.mark.parametrize("by", ["accuracy", "miou"])
def test_what_a_part_does_outside_of_the_region_does_not_count(by):
    model, (images, labels) = curved(), scene(4, 10, 10)
    labels = half_right(model, images, labels)
    region = torch.zeros_like(labels, dtype=torch.bool)
    region[:, :5] = True

    class Outside(Attack):
        norm = BALL

        def perturb(self, problem):
            everywhere = replace(problem, region=None)
            return torch.where(problem.region, problem.images, pgd(6).perturb(everywhere))

    weak = pgd(2, name="weak")
    alone = weak(model, images, labels, [1, 2, 3, 4], region=region)
    both = WorstCase([weak, Outside("outside")], by)(model, images, labels, [1, 2, 3, 4], region=region)
    assert not torch.equal(alone, images)
    assert (unfooled(model, alone, labels) < unfooled(model, images, labels)).all()
    assert torch.equal(both, alone), "the other attack's images come back as they were"


@pytest.mark.parametrize("targeted", [False, True])
def test_worst_case_by_miou_is_a_local_minimum_below_every_part(targeted):
    model, (images, labels) = curved(), scene(6, 10, 10)
    labels = half_right(model, images, labels)
    seeds, sign = list(range(6)), -1 if targeted else 1

    def score(x):
        with torch.no_grad():
            return sign * miou(model(x).argmax(1), labels)

    worst = WorstCase(parts(), by="miou")(model, images, labels, seeds, targeted=targeted)
    alone = [part(model, images, labels, seeds, targeted=targeted) for part in parts()]
    assert score(worst) < min(map(score, alone))
    for i in range(6):
        assert any(torch.equal(worst[i], result[i]) for result in alone)
        for result in alone:
            other = worst.clone()
            other[i] = result[i]
            assert score(worst) <= score(other) + 1e-12
    one = WorstCase(parts(), by="miou")(model, images[:1], labels[:1], seeds[:1], targeted=targeted)
    assert one.shape == images[:1].shape


def test_worst_case_is_one_attack_to_others():
    attack = WorstCase([WorstCase(parts()[:2]), parts()[2]])
    assert attack.steps == 6
    assert attack.norm is attack.attacks[0].norm
    assert attack.targetable
    assert not attack.mixes
    images = torch.full((1, 3, 1, 1), 100 / 255)
    assert torch.equal(attack.quantize(images, images + 8.4 / 255), BALL.quantize(images, images + 8.4 / 255))
    with pytest.raises(ValueError, match="needs an ensemble"):
        WorstCase([SVRE(CrossEntropy(), BALL)]).check_model(curved())


@pytest.mark.parametrize(
    ("attacks", "by", "message"),
    [
        ([], "accuracy", "give one or more"),
        ([pgd()], "iou", "by='iou': must be one of accuracy, miou"),
        ([pgd(), DAG()], "accuracy", "dag has no norm to stay in"),
        ([NoAttack()], "accuracy", "no_attack has no norm"),
        ([pgd(), pgd(norm=L2(1.0))], "miou", r"pgd has the budget linf 0.0313725, pgd l2 1"),
        ([pgd(), pgd(norm=Linf(0.1), name="x")], "miou", r"x linf 0.1: the worst case is one of equal budgets"),
    ],
)
def test_worst_case_errors(attacks, by, message):
    with pytest.raises(ValueError, match=message):
        WorstCase(attacks, by)
