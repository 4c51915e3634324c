"""Transforms that sample or look ahead, against loops written a second time, image by image."""

import pytest
import torch

from lightning_attack.attacks import (
    DirectionTuning,
    Draws,
    EnhancedEuler,
    FrequencyRelevance,
    GradientRelevance,
    Momentum,
    Nesterov,
    RandomWalk,
    ReversePerturbation,
    RunningMean,
)
from lightning_attack.attacks.gradient_transforms.base import Budget
from lightning_attack.attacks.input_transforms.spectral import dct2, idct2
from tests.attacks.gradient_transforms.test_sampling import STEP, STEPS, accumulate, loop, of_unit_mean, run
from tests.attacks.toys import PIXELS, share_of_differences


def drawn(draws, purpose, x, radius):
    return draws.uniform(purpose, x.shape[1:], -radius * PIXELS, radius * PIXELS).double()


def gra(gradient, x, draws, memory):
    here = gradient(x)
    around = sum(gradient(x + drawn(draws, "gradient relevance", x, 3.5)) for _ in range(2)) / 2
    a, b = here.flatten(), around.flatten()
    cosine = (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()
    return accumulate(cosine * here + (1 - cosine) * around, memory, 1.0)


def walk(gradient, x, draws, memory):
    points = [x]
    for _ in range(3):
        points.append(points[-1] + drawn(draws, "random walk", x, 1.5))
    return accumulate(sum(map(gradient, points)) / 4, memory, 1.0)


def euler(gradient, x, draws, memory):
    first = of_unit_mean(gradient(x))
    second = of_unit_mean(gradient(x + STEP * first))
    memory["sum"] = 0.7 * memory.get("sum", 0) + 0.5 * (first + second)
    return memory["sum"]


def fgsra(gradient, x, draws, memory):
    """The change of frequencies is undone by automatic differentiation."""
    here, around = gradient(x), 0
    for _ in range(2):
        near = x + drawn(draws, "frequency relevance", x, 2.0)
        masks = draws.uniform("frequency mask", x.shape[1:], 0.3, 1.7).double()
        shaken, pull = torch.func.vjp(lambda v, masks=masks: idct2(masks * dct2(v)), near)
        around = around + torch.cosine_similarity(x.flatten(), shaken.flatten(), dim=0) * pull(gradient(shaken))[0]
    cosine = torch.cosine_similarity(here.flatten(), around.flatten(), dim=0)
    return accumulate(cosine * here + (1 - cosine) * around, memory, 1.0)


def dta(gradient, x, draws, memory):
    here, ahead, found = x, memory.get("sum", torch.zeros_like(x)), []
    for _ in range(3):
        ahead = 0.5 * ahead + of_unit_mean(gradient(here + 0.7 * STEP * ahead))
        found.append(ahead)
        here = here + STEP / 3 * torch.sign(ahead)
    memory["sum"] = 0.7 * memory.get("sum", 0) + torch.stack(found).mean(0)
    return memory["sum"]


def rap(gradient, x, draws, memory):
    memory["step"] = memory.get("step", 0) + 1
    if memory["step"] <= STEPS // 2:
        return accumulate(gradient(x), memory, 1.0)
    against = drawn(draws, "reverse perturbation", x, 0.5)
    for _ in range(2):
        moved = against - 0.25 * PIXELS * torch.sign(gradient(x + against))
        against = torch.clip(x + torch.clip(moved, -0.5 * PIXELS, 0.5 * PIXELS), 0, 1) - x
    return accumulate(gradient(x + against), memory, 1.0)


def anda(gradient, x, draws, memory):
    memory["all"] = [*memory.get("all", []), gradient(x)]
    return torch.stack(memory["all"]).mean(0)


@pytest.mark.parametrize(
    ("transforms", "reference"),
    [
        ((GradientRelevance(2), Momentum()), gra),
        ((FrequencyRelevance(2), Momentum()), fgsra),
        ((DirectionTuning(3, 0.7, 0.5),), dta),
        ((RandomWalk(3), Momentum()), walk),
        ((EnhancedEuler(0.7),), euler),
        ((ReversePerturbation(2, 0.5, 0.25, 0.5), Momentum()), rap),
        ((RunningMean(),), anda),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_against_a_second_version(transforms, reference):
    ours = run(*transforms, ignored=0.2)
    # Sums in another order may turn the sign of a value whose gradient is next to nothing.
    assert share_of_differences(ours, loop(reference)) < 1e-3
    assert share_of_differences(ours, run(Momentum(), ignored=0.2)) > 4e-3


@pytest.mark.parametrize(
    "nothing",
    [
        GradientRelevance(0),
        GradientRelevance(1, 0.0),
        FrequencyRelevance(0),
        FrequencyRelevance(2, 0.0, 0.0),
        RandomWalk(0),
        ReversePerturbation(0, 0.0),
    ],
    ids=lambda part: type(part).__name__,
)
def test_limits_that_do_nothing(nothing):
    assert share_of_differences(run(nothing, Momentum()), run(Momentum())) < 1e-3


def test_one_small_step_ahead_is_nesterov():
    assert torch.equal(run(DirectionTuning(1, 0.7)), run(Nesterov(0.7)))


def test_relevance_of_gradients_of_zero():
    """No direction has nothing in common with another one: the neighbours alone count."""
    found = iter([torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 2.0]]]])])
    ascent = GradientRelevance(1)(lambda x: next(found), Budget(0.1, 0.01, 1, Draws([0])))
    assert ascent(torch.zeros(1, 1, 1, 2)).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GradientRelevance(-1), "samples=-1: must be 0 or more"),
        (lambda: RandomWalk(radius=-1.0), "radius=-1.0: must be a finite number"),
        (lambda: EnhancedEuler(-1.0), "decay=-1.0"),
        (lambda: FrequencyRelevance(rho=1.5), "rho=1.5: must be between 0 and 1"),
        (lambda: DirectionTuning(0), "inner_steps=0: must be 1 or more"),
        (lambda: DirectionTuning(inner_decay=float("nan")), "inner_decay=nan"),
        (lambda: ReversePerturbation(-1), "inner_steps=-1"),
        (lambda: ReversePerturbation(inner_size=float("nan")), "inner_size=nan"),
        (lambda: ReversePerturbation(late_start=1.5), "late_start=1.5"),
    ],
)
def test_out_of_range(make, says):
    with pytest.raises(ValueError, match=says):
        make()
