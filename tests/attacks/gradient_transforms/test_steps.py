"""What takes the place of the sign, against numpy on a linear network, and where it may stand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lightning_attack.attacks import (
    SVRE,
    AdaptiveTanh,
    CrossEntropy,
    DecayIndicator,
    IterativeAttack,
    Linf,
    Momentum,
    NonSign,
    Rescale,
    Staircase,
    TranslationInvariance,
    VarianceTuning,
    bim,
    gra,
    mi_fgsm,
    pi_fgsm,
)

SIZE, STEP, STEPS = 6, 0.01, 4


def slopes(step):
    """A gradient that differs from step to step, with a value of zero, and an image without any."""
    generator = np.random.default_rng(step)
    values = generator.normal(size=(2, 3, SIZE, SIZE)) * 10 ** generator.uniform(-3, 0, size=(2, 3, SIZE, SIZE))
    values[:, 0, 0, 0], values[1] = 0, 0
    return values


def moves(*transforms, norm="linf", region=None):
    """How far each value moves in each step of an attack far from every border, (STEPS, 2, 3, SIZE, SIZE)."""
    given = iter(range(STEPS))

    class Given(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return torch.zeros(2, 2, SIZE, SIZE, dtype=x.dtype) + 0 * x.sum()

        @staticmethod
        def backward(context, above):
            return torch.as_tensor(slopes(next(given)))

    images, labels = torch.full((2, 3, SIZE, SIZE), 0.5).double(), torch.zeros(2, SIZE, SIZE, dtype=torch.int64)
    seen = [images]
    eps = 0.5 if norm == "linf" else 10.0
    attack = bim(norm=norm, eps=eps, steps=STEPS, step_size=STEP, gradient_transforms=list(transforms))
    attack(Given.apply, images, labels, [1, 2], watch=lambda step, x: seen.append(x), region=region)
    return np.stack([(after - before).numpy() for before, after in pairwise(seen)])


def staircase(g):
    sizes = np.abs(g).flatten()
    rank = sizes.argsort().argsort() - (sizes == 0).sum()  # from 0, among values with a gradient
    part = np.floor(4 * rank / (sizes > 0).sum()) + 1
    return np.sign(g) * ((2 * part - 1) / 4).reshape(g.shape)


def rescale(g):
    logs = np.log2(np.abs(g[g != 0]))
    z = (np.log2(np.where(g == 0, 1, np.abs(g))) - logs.mean()) / logs.std(ddof=1)
    return np.sign(g) * 2 / (1 + np.exp(-z))


def non_sign(g):
    return g * math.sqrt((g != 0).sum()) / np.sqrt((g**2).sum())


WITHOUT_A_MEMORY = pytest.mark.parametrize(
    ("part", "formula"), [(Staircase(4), staircase), (Rescale(), rescale), (NonSign(), non_sign)], ids=lambda value: ""
)


@WITHOUT_A_MEMORY
def test_gradients_outside_of_the_region_lengthen_no_step(part, formula):
    region = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    region[:, 1:4, 2:] = True
    moved = moves(part, region=region)
    for step in range(STEPS):
        assert np.allclose(moved[step][0], STEP * formula(slopes(step)[0] * region[0].numpy()), atol=1e-12)


@WITHOUT_A_MEMORY
def test_steps_without_a_memory(part, formula):
    moved = moves(part)
    for step in range(STEPS):
        assert np.allclose(moved[step][0], STEP * formula(slopes(step)[0]), atol=1e-12)
        assert not moved[step][1].any(), "an image without a gradient stays"
    # In L2 steps have one length, along what the weights make of the gradient.
    along = moves(part, norm="l2")[0][0]
    assert np.allclose(along, STEP * formula(slopes(0)[0]) / np.sqrt((formula(slopes(0)[0]) ** 2).sum()), atol=1e-12)


def test_staircase_of_one_is_the_sign_and_the_mean_of_stairs_is_one():
    assert np.array_equal(moves(Staircase(1)), moves())
    g = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert Staircase(64).weights(g).mean() == 1
    assert sorted({*Staircase(64).weights(g).flatten().tolist()}) == [(2 * k + 1) / 64 for k in range(64)]


def test_adam_and_tanh():
    lengths = [(1 - 0.9**t) / math.sqrt(1 - 0.99**t) for t in range(1, STEPS + 1)]
    m = v = 0
    moved = moves(AdaptiveTanh())
    for step in range(STEPS):
        g = slopes(step)[0]
        m, v = m + 1.5 * g, v + 1.9 * g**2
        with np.errstate(invalid="ignore"):
            bent = np.nan_to_num(np.tanh(1.3 * m / np.sqrt(v)))
        assert np.allclose(moved[step][0], STEP * STEPS * lengths[step] / sum(lengths) * bent, atol=1e-12)
        assert not moved[step][1].any()


def test_decay_indicator_shortens_the_steps_of_values_that_turn():
    shares, momentum, last = np.ones((3, SIZE, SIZE)), 0, None
    moved = moves(Momentum(), DecayIndicator(0.5))
    for step in range(STEPS):
        g = slopes(step)[0]
        momentum = momentum + g / np.abs(g).mean()
        if last is not None:
            shares = np.where(np.sign(momentum) == last, shares, 0.5 * shares)
        last = np.sign(momentum)
        assert np.allclose(moved[step][0], STEP * shares * last, atol=1e-12)
    assert (shares < 1).any()
    assert np.array_equal(moves(Momentum(), DecayIndicator(1.0)), moves(Momentum()))


def test_two_of_them_multiply():
    both, one = moves(DecayIndicator(0.5), Staircase(4)), moves(DecayIndicator(0.5))
    assert np.allclose(both[1][0], one[1][0] * np.abs(staircase(slopes(1)[0])), atol=1e-12)


def test_what_sets_the_lengths_of_steps_is_last():
    for late in (Momentum(), TranslationInvariance(3), VarianceTuning(1)):
        with pytest.raises(ValueError, match=rf"{type(late).__name__} changes; put Staircase last"):
            IterativeAttack(CrossEntropy(), Linf(), gradient_transforms=[Staircase(), late])
    with pytest.raises(ValueError, match="both accumulate"):
        mi_fgsm(gradient_transforms=[AdaptiveTanh()])
    # A preset puts them there itself.
    parts = gra(gradient_transforms=[Staircase(), TranslationInvariance(3)]).gradient_transforms
    assert [type(part).__name__ for part in parts] == [
        "TranslationInvariance", "GradientRelevance", "Momentum", "DecayIndicator", "Staircase"
    ]  # fmt: skip


def test_loops_with_steps_of_their_own_refuse_them():
    with pytest.raises(ValueError, match="NonSign sets the lengths of steps, and pi_fgsm has its own"):
        pi_fgsm(gradient_transforms=[NonSign()])
    with pytest.raises(ValueError, match="Staircase must be evaluated once a step"):
        SVRE(CrossEntropy(), Linf(), gradient_transforms=[Staircase()])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DecayIndicator(1.1), "eta=1.1"),
        (lambda: Staircase(0), "stairs=0"),
        (lambda: Rescale(0), "factor=0"),
        (lambda: AdaptiveTanh(mu2=0), "mu2=0"),
        (lambda: AdaptiveTanh(beta2=1.0), "beta2=1.0"),
    ],
)
def test_out_of_range(make, says):
    with pytest.raises(ValueError, match=says):
        make()
