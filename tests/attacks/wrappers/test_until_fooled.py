"""Images that leave the batch: the same result where the attack could not change it, in fewer passes."""

import pytest
import torch

from lightning_attack.attacks import (
    APGD,
    CrossEntropy,
    FoolAllPixels,
    InputDiversity,
    IterativeAttack,
    Linf,
    MaskedCrossEntropy,
    Momentum,
    Staged,
    Switch,
    UntilFooled,
    WorstCase,
    admix,
    bim,
    masked_pgd,
    transegpgd_best,
    transfer_best,
)
from lightning_attack.attacks.doubts import doubts
from lightning_attack.predict.cost import count_passes
from tests.attacks.toys import curved, half_right, scene


def problem(images=4):
    model = curved()
    images, labels = scene(images)
    labels = half_right(model, images, labels)
    labels[0, :, 2:] = labels[0, 2:] = labels[1, 3:] = 255  # few pixels: soon fooled
    return model, images, labels


def attack(objective, **settings):
    return IterativeAttack(objective, Linf(0.5), steps=6, step_size=0.15, **{"random_start": True} | settings)


def ran(attack, model, images, labels):
    figures = []
    with count_passes(model) as passes:
        result = attack(
            model, images, labels, list(range(len(images))), log=lambda step, values: figures.append(values)
        )
    return result, passes["backward"], figures


@pytest.mark.parametrize(
    "objective",
    [
        MaskedCrossEntropy(),
        FoolAllPixels(gamma=0),
        Staged([FoolAllPixels(gamma=0), MaskedCrossEntropy()], [Switch(at=0.5, all_fooled=False)]),
    ],
)
def test_exact_where_only_unfooled_pixels_count(objective):
    model, images, labels = problem()
    whole, all_passes, all_figures = ran(attack(objective), model, images, labels)
    rested, passes, figures = ran(UntilFooled(attack(objective)), model, images, labels)
    assert torch.equal(rested, whole)
    assert passes < all_passes
    assert len(figures) == len(all_figures)
    for mine, theirs in zip(figures, all_figures, strict=True):
        assert torch.equal(mine["p_t"], theirs["p_t"])
    assert figures[-1]["p_t"][0] == 0 < figures[0]["p_t"][0]


def test_others_end_early_at_the_first_point_that_fools():
    model, images, labels = problem()
    result, passes, figures = ran(UntilFooled(attack(CrossEntropy())), model, images, labels)
    went_on, all_passes, _ = ran(attack(CrossEntropy()), model, images, labels)
    assert passes < all_passes
    assert not torch.equal(result[0], went_on[0])
    right = (model(result).argmax(1) == labels) & (labels != 255)
    assert not right[0].any()
    assert figures[-1]["p_t"][0] == 0


def test_an_image_does_not_see_who_has_left():
    """With random views: each image alone is what it is in the batch."""
    model, images, labels = problem()
    made = UntilFooled(attack(MaskedCrossEntropy(), input_transforms=[InputDiversity()]))
    together = made(model, images, labels, [5, 6, 7, 8])
    for row in range(4):
        alone = made(model, images[row : row + 1], labels[row : row + 1], [5 + row])
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "made",
    [attack(CrossEntropy(), gradient_transforms=[Momentum()]), APGD(CrossEntropy(), Linf("8/255")), admix()],
)
def test_attacks_that_cannot_let_images_go(made):
    with pytest.raises(ValueError, match="cannot let images go: UntilFooled needs"):
        UntilFooled(made)


def test_it_has_the_budget_and_the_steps_of_its_attack():
    attack = UntilFooled(masked_pgd(eps="4/255", steps=7))
    assert (attack.steps, attack.norm.eps) == (7, 4 / 255)
    assert WorstCase([attack]).steps == 7


def test_doubts_and_citations():
    assert doubts(bim(steps=3, step_size="1/255"), True)
    assert doubts(bim(steps=3, step_size="1/255", finish="sign"), True) == []
    assert "byun2023cfm" in transfer_best().citations
    assert "byun2023cfm" in transegpgd_best().citations
