"""Transforms that ask at several points or look ahead: against torchattacks, loops written a second time, limits."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks.gradient_transforms.base import (
    Budget,
    GradientTransform,
    Momentum,
    Nesterov,
    PreGradient,
    TranslationInvariance,
    check_order,
)
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    ExpectedFlatness,
    PenalizedGradientNorm,
    VarianceTuning,
)
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import PIXELS, curved, half_right, scene, share_of_differences

STEP, STEPS, SEEDS = 2 / 255, 6, [3, 4]
NAN, INF = float("nan"), float("inf")


def setting(size=32, ignored=0.0):
    model = curved()
    images, labels = scene(2, size, size, ignored)
    return model, images, half_right(model, images, labels)


def attack(*transforms):
    return IterativeAttack(CrossEntropy(), Linf(PIXELS), STEPS, STEP, gradient_transforms=transforms)


def run(*transforms, ignored=0.0):
    return attack(*transforms)(*setting(ignored=ignored), seeds=SEEDS)


@pytest.mark.parametrize("accumulator", [Momentum, Nesterov])
@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_variance_tuning_is_that_of_torchattacks(monkeypatch, accumulator, decay):
    torchattacks = pytest.importorskip("torchattacks", reason="the independent implementation is optional")
    peer = torchattacks.VMIFGSM if accumulator is Momentum else torchattacks.VNIFGSM
    model, images, labels = setting()
    reach, draws = 1.5 * PIXELS, Draws(SEEDS)
    drawn = []

    def noise(self, low, high):
        assert (low, high) == (-reach, reach)
        drawn.append(draws.uniform("variance tuning", (3, 32, 32), low, high))
        return self.copy_(drawn[-1])

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", noise)
        theirs = peer(model, eps=PIXELS, alpha=STEP, steps=STEPS, decay=decay, N=3, beta=1.5)(images, labels)
    assert len(drawn) == 3 * STEPS
    ours = run(VarianceTuning(samples=3, radius=1.5), accumulator(decay))
    assert torch.equal(ours, theirs)
    assert share_of_differences(ours, run(accumulator(decay))) > 0.01


def loop(ascend):
    """Steps of each image alone along `ascend(gradient, x, draws, memory)`; some pixels are ignored."""
    model, images, labels = setting(ignored=0.2)
    finals = []
    for image, label, seed in zip(images[:, None], labels[:, None], SEEDS, strict=True):

        def gradient(x, label=label):
            x = x.clone().requires_grad_()
            F.cross_entropy(model(x), label, ignore_index=255, reduction="sum").backward()
            return x.grad

        x, memory, draws = image, {}, Draws([seed])
        for _ in range(STEPS):
            x = x + STEP * torch.sign(ascend(gradient, x, draws, memory))
            x = torch.clip(image + torch.clip(x - image, -PIXELS, PIXELS), 0, 1)
        finals.append(x[0])
    return torch.stack(finals)


def of_unit_mean(gradient):
    return gradient / gradient.abs().mean()


def accumulate(gradient, memory, decay):
    memory["sum"] = decay * memory.get("sum", 0) + of_unit_mean(gradient)
    return memory["sum"]


@pytest.mark.parametrize(("samples", "radius", "decay"), [(5, 7.0, 1.0), (2, 3.0, 0.7)])
def test_enhanced_sampling(samples, radius, decay):
    def emi(gradient, x, draws, memory):
        line = sorted(torch.linspace(-radius, radius, samples, dtype=torch.float64).tolist(), key=abs)
        mean = sum(gradient(x + c * STEP * memory.get("direction", 0)) for c in line) / samples
        memory["direction"] = of_unit_mean(mean)
        return accumulate(mean, memory, decay)

    ours = run(EnhancedSampling(samples, radius), Momentum(decay), ignored=0.2)
    assert torch.equal(ours, loop(emi))
    assert share_of_differences(ours, run(Momentum(decay), ignored=0.2)) > 0.01


def test_enhanced_sampling_asks_from_the_middle_outwards():
    seen = []

    def gradient(x):
        seen.append(float(x))
        return torch.ones_like(x)

    ascent = EnhancedSampling(samples=5, radius=2.0)(
        gradient, Budget(eps=9.0, step_size=0.5, steps=2, draws=Draws([0]))
    )
    for _ in range(2):
        ascent(torch.full((1, 1, 1, 1), 3.0))
    assert seen == [3.0] * 5 + [3.0, 2.5, 3.5, 2.0, 4.0]


@pytest.mark.parametrize(("samples", "radius", "balance"), [(3, 3.0, 0.5), (1, 1.5, 1.0), (2, 3.0, 0.0)])
def test_penalized_gradient_norm(samples, radius, balance):
    def pgn(gradient, x, draws, memory):
        total = 0
        for _ in range(samples):
            noise = draws.uniform("penalized gradient norm", x.shape[1:], -radius * PIXELS, radius * PIXELS)
            near = x + noise.double()
            first = gradient(near)
            total = total + (1 - balance) * first + balance * gradient(near - STEP * of_unit_mean(first))
        return accumulate(total / samples, memory, decay=1.0)

    ours = run(PenalizedGradientNorm(samples, radius, balance), Momentum(), ignored=0.2)
    assert torch.equal(ours, loop(pgn))
    assert share_of_differences(ours, run(Momentum(), ignored=0.2)) > 0.01


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_balance_of_the_penalty_makes_a_difference(balance):
    ends = run(PenalizedGradientNorm(2, 1.0, balance), Momentum())
    assert share_of_differences(ends, run(PenalizedGradientNorm(2, 1.0, 0.5), Momentum())) > 0.001


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_pre_gradient(decay):
    def pi(gradient, x, draws, memory):
        here = gradient(x + decay * STEP * memory.get("last", 0))
        memory["last"] = of_unit_mean(here)
        return accumulate(here, memory, decay)

    ours = run(PreGradient(decay), ignored=0.2)
    assert torch.equal(ours, loop(pi))
    for other in (Momentum, Nesterov):
        assert share_of_differences(ours, run(other(decay), ignored=0.2)) > 0.01


@pytest.mark.parametrize("accumulator", [Momentum(), Nesterov(), PreGradient()])
@pytest.mark.parametrize(
    "nothing",
    [
        VarianceTuning(samples=0),
        EnhancedSampling(samples=2, radius=0.0),
        PenalizedGradientNorm(samples=1, radius=0.0, balance=0.0),
        PenalizedGradientNorm(samples=2, radius=0.0, balance=0.0),
    ],
    ids=lambda part: type(part).__name__,
)
def test_limits_that_do_nothing(nothing, accumulator):
    assert torch.equal(run(nothing, accumulator), run(accumulator))


def test_limits_of_the_pre_gradient():
    # Without decay it neither looks ahead nor accumulates. In the second step its last gradient is still NI's momentum.
    x, draws = scene(2, 4, 4)[0], Draws([0, 1])
    pi, mi = (kind(0.0)(torch.square, Budget(0.1, 0.05, 3, draws)) for kind in (PreGradient, Momentum))
    assert all(torch.equal(pi(x * step), mi(x * step)) for step in (1, 2, 3))
    pi, ni = (kind(1.0)(torch.square, Budget(0.1, 0.05, 3, draws)) for kind in (PreGradient, Nesterov))
    assert [torch.equal(pi(x * step), ni(x * step)) for step in (1, 2, 3)] == [True, True, False]


def test_neighbours_lie_around_the_iterate_not_the_point_ahead():
    seen = []

    def gradient(x):
        seen.append(x)
        return torch.ones_like(x)

    budget = Budget(eps=0.0, step_size=1.0, steps=2, draws=Draws([0]))
    ascent = Nesterov()(VarianceTuning(samples=1)(gradient, budget), budget)
    for value in (0.0, 1.0):
        budget.point = torch.full((1, 1, 1, 1), value)
        ascent(budget.point)
    # At the iterate and its neighbour; then 1 ahead of the iterate, where the momentum is 1, and a neighbour again.
    assert [float(x) for x in seen] == [0.0, 0.0, 2.0, 1.0]
    budget.point = None
    VarianceTuning(samples=1)(gradient, budget)(torch.full((1, 1, 1, 1), 5.0))
    assert [float(x) for x in seen[4:]] == [5.0, 5.0]


EVERY = [
    (VarianceTuning(3), Momentum()),
    (VarianceTuning(3), TranslationInvariance(3), Nesterov()),
    (EnhancedSampling(3), Momentum()),
    (EnhancedSampling(3), Nesterov()),
    (PenalizedGradientNorm(2), Momentum()),
    (PenalizedGradientNorm(2), VarianceTuning(2), PreGradient()),
    (PreGradient(),),
]
every = pytest.mark.parametrize(
    "transforms", EVERY, ids=lambda transforms: "+".join(type(part).__name__ for part in transforms)
)


@every
def test_batch_is_its_images_one_by_one(transforms):
    model, images, labels = setting(ignored=0.2)
    labels[0, :10] = 255
    both = attack(*transforms)(model, images, labels, SEEDS)
    for i in range(2):
        assert torch.equal(
            both[i], attack(*transforms)(model, images[i : i + 1], labels[i : i + 1], SEEDS[i : i + 1])[0]
        )
    assert torch.equal(both, attack(*transforms)(model, images, labels, SEEDS)), "nothing is left from a batch before"


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_zero_stays_zero(transforms, dtype):
    x, budget = scene(2, 8, 8, dtype=dtype)[0], Budget(0.1, 0.05, 3, Draws(SEEDS))

    def ascent(x):  # none for the first image
        return torch.stack([torch.zeros_like(x[0]), x[1].cos()])

    for transform in transforms:
        ascent = transform(ascent, budget)
    for _ in range(3):
        direction = ascent(x)
        assert direction.dtype == dtype
        assert not direction[0].any()
        assert direction[1].isfinite().all()
        assert direction[1].any()


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [Momentum(), VarianceTuning()],
            "VarianceTuning cannot come after Momentum: it would advance the momentum more than once a step. "
            "Put Momentum last",
        ),
        (
            [PreGradient(), TranslationInvariance(3), EnhancedSampling()],
            "EnhancedSampling cannot come after PreGradient: it would advance the momentum more than once a step. "
            "Put PreGradient last",
        ),
        (
            [VarianceTuning(), EnhancedSampling(), Momentum()],
            "EnhancedSampling cannot come after VarianceTuning: it would change what VarianceTuning remembers of the "
            "step before more than once a step. Use one of them",
        ),
        (
            [VarianceTuning(), TranslationInvariance(3), PenalizedGradientNorm(), Momentum()],
            "PenalizedGradientNorm cannot come after VarianceTuning: it would change what VarianceTuning remembers of "
            "the step before more than once a step. Put PenalizedGradientNorm before VarianceTuning",
        ),
        (
            [PreGradient(), Momentum()],
            "PreGradient and Momentum both accumulate the gradient over the steps; use one of them",
        ),
    ],
    ids=["momentum first", "pre-gradient first", "both remember", "sampler late", "two accumulators"],
)
def test_orders_that_cannot_work(transforms, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        attack(*transforms)


class Keeper(GradientTransform):
    remembers = True

    def __call__(self, gradient, budget):
        return gradient


def test_orders_that_work():
    for transforms in EVERY:
        check_order(transforms)
    check_order([PenalizedGradientNorm(), PenalizedGradientNorm(), Keeper(), Momentum()])
    check_order([VarianceTuning(), Keeper()])
    with pytest.raises(ValueError, match=r"after Keeper.*\. Put EnhancedSampling before Keeper$"):
        check_order([Keeper(), EnhancedSampling()])


@pytest.mark.parametrize(
    ("make", "least"),
    [(VarianceTuning, 0), (EnhancedSampling, 2), (PenalizedGradientNorm, 1)],
    ids=["vt", "emi", "pgn"],
)
def test_settings_out_of_range(make, least):
    assert make(samples=least, radius=0.0).samples == least
    with pytest.raises(ValueError, match=f"samples={least - 1}: must be {least} or more"):
        make(samples=least - 1)
    for radius in (-0.5, NAN, INF):
        with pytest.raises(ValueError, match=f"radius={radius}: must be a finite number, 0 or more"):
            make(radius=radius)


@pytest.mark.parametrize("balance", [-0.1, 1.1, NAN])
def test_balance_out_of_range(balance):
    with pytest.raises(ValueError, match=f"balance={balance}: must be between 0 and 1"):
        PenalizedGradientNorm(balance=balance)


@pytest.mark.parametrize("decay", [-0.1, NAN])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"decay={decay}: must be 0 or more"):
        PreGradient(decay)


def test_neighbours_of_flatness_remember_their_own_gradients():
    """Against a loop that follows the formula, with other random numbers for each neighbour and step."""

    def gradient(x):
        return x**3 - x

    eps, samples, steps = 0.1, 3, 4
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(steps, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    ascent = ExpectedFlatness(samples, radius=2.0, push=0.3, inner_decay=0.9)(
        gradient, Budget(eps, 0.01, steps, Draws([5, 6]))
    )
    draws, memory = Draws([5, 6]), [torch.zeros_like(points[0])] * samples
    for x in points:
        found = []
        for i in range(samples):
            noise = draws.uniform("expected flatness", (3, 4, 4), -0.2, 0.2).double()
            g = gradient(x + noise + 0.03 * memory[i])
            memory[i] = g / g.abs().mean(dim=(1, 2, 3), keepdim=True) - 0.9 * memory[i]
            found.append(g)
        assert torch.allclose(ascent(x), sum(found) / samples, atol=1e-12)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"radius": -1.0}, {"push": math.inf}, {"inner_decay": -0.1}])
def test_flatness_refuses(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ExpectedFlatness(**settings)
