"""`GlobalMomentum` against a second version of it."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks import (
    FIA,
    AdaptiveTanh,
    Budget,
    CrossEntropy,
    DecayIndicator,
    Draws,
    GlobalMomentum,
    IterativeAttack,
    Momentum,
    ReversePerturbation,
    Staged,
    Switch,
    gi_fgsm,
)
from lightning_attack.attacks.objectives.transegpgd import FoolAllPixels, TransferablePixels
from tests.attacks.toys import BALL, PIXELS, STEP, STEPS, curved, half_right, scene, share_of_differences


def setting():
    model, (images, labels) = curved(), scene(2, 16, 12)
    return model, images, half_right(model, images, labels)


def second_version(model, images, labels, pre_steps, factor, decay):
    def climb(x, momentum, steps, size):
        for _ in range(steps):
            x = x.detach().requires_grad_()
            F.cross_entropy(model(x), labels, ignore_index=255, reduction="sum").backward()
            momentum = decay * momentum + x.grad / x.grad.abs().mean((1, 2, 3), keepdim=True)
            x = torch.clip(images + torch.clip(x + size * momentum.sign() - images, -PIXELS, PIXELS), 0, 1)
        return x, momentum

    _, momentum = climb(images, 0, pre_steps, factor * STEP)
    return climb(images, momentum, STEPS, STEP)[0]


@pytest.mark.parametrize(("pre_steps", "factor", "decay"), [(5, 10.0, 1.0), (2, 2.0, 0.7)])
def test_against_a_second_version(pre_steps, factor, decay):
    model, images, labels = setting()
    attack = gi_fgsm(eps=PIXELS, steps=STEPS, step_size=STEP, pre_steps=pre_steps, factor=factor, decay=decay)
    ours = attack(model, images, labels, [1, 2])
    assert torch.equal(ours, second_version(model, images, labels, pre_steps, factor, decay))
    plain = gi_fgsm(eps=PIXELS, steps=STEPS, step_size=STEP, pre_steps=0, decay=decay)
    assert share_of_differences(ours, plain(model, images, labels, [1, 2])) > 0.01


def test_the_objective_forgets_the_first_phase():
    """Stages begin anew: all images are in stage one in the first step, as in an attack without the first phase."""
    model, images, _ = setting()
    with torch.no_grad():
        labels = model(images).argmax(1)  # so that nothing is fooled before the first phase
    objective = Staged([FoolAllPixels(), TransferablePixels()], [Switch(at=1.0, fooled=0.01)])
    seen = []
    attack = GlobalMomentum(objective, BALL, 3, STEP, gradient_transforms=[Momentum()])
    attack(model, images, labels, [1, 2], log=lambda step, figures: seen.append(figures["stage_two"].tolist()))
    first = []
    plain = IterativeAttack(objective, BALL, 3, STEP, gradient_transforms=[Momentum()])
    plain(model, images, labels, [1, 2], log=lambda step, figures: first.append(figures["stage_two"].tolist()))
    assert seen[0] == first[0] == [False, False]
    assert seen[-1] == [True, True], "shorter steps than those of the first phase cross the threshold"
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pre_steps": -1}, "pre_steps=-1"),
        ({"factor": 0.0}, "factor=0.0"),
        ({"gradient_transforms": []}, "there is none"),
    ],
)
def test_out_of_range(settings, says):
    with pytest.raises(ValueError, match=says):
        GlobalMomentum(CrossEntropy(), BALL, **{"gradient_transforms": [Momentum()], **settings})


@pytest.mark.parametrize("transform", [DecayIndicator(0.0), ReversePerturbation(late_start=1.0)])
def test_transforms_do_not_count_the_first_phase(transform):
    """The one would hold values whose direction turned there, the other would begin before the attack ends."""
    model, images, labels = setting()
    order = [transform, Momentum()] if not transform.scales else [Momentum(), transform]
    found = [
        GlobalMomentum(CrossEntropy(), BALL, 1, STEP, gradient_transforms=transforms)(model, images, labels, [1, 2])
        for transforms in (order, [Momentum()])
    ]
    assert torch.equal(*found)


def test_lengths_of_steps_begin_with_the_attack():
    budget, adam = Budget(1.0, 0.1, 3, Draws([0])), AdaptiveTanh(strength=1e6)
    ascent, scales = adam(lambda x: x, budget), []
    for budget.step in (0, 0, 0, 1, 2):  # two before
        budget.scale = 1.0
        ascent(torch.ones(1, 1, 1, 1))
        scales.append(float(budget.scale))
    assert scales[2:] == pytest.approx(adam.lengths(3))


def test_what_an_objective_has_prepared_outlives_the_first_phase():
    model, images, labels = setting()
    layer = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d))
    attack = GlobalMomentum(FIA([layer], samples=2), BALL, STEPS, STEP, gradient_transforms=[Momentum()])
    both = attack(model, images, labels, [1, 2])
    assert not torch.equal(both, images)
    alone = [attack(model, images[n : n + 1], labels[n : n + 1], [n + 1]) for n in range(2)]
    assert share_of_differences(both, torch.cat(alone)) < 0.01
