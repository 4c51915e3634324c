"""Answers known without a program."""

import math

import pytest
import torch
from torch import nn

from lightning_attack.attacks import (
    L2,
    Linf,
    Momentum,
    Nesterov,
    TranslationInvariance,
    bim,
    mi_fgsm,
    ni_fgsm,
    pgd,
    ti_fgsm,
)
from lightning_attack.attacks.gradient_transforms.base import Budget
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import curved, scene

BUDGET = Budget(eps=0.3, step_size=0.1, steps=4, draws=Draws([0]))


def test_what_each_value_moves_if_all_move_alike():
    assert Linf(0.1).per_value(0.1, 4) == 0.1
    assert L2(2.0).per_value(2.0, 4) == 1.0
    # NI in L2 looks ahead of where the first step led, by a step's share along a momentum of mean size 1.
    images, labels, shown = *scene(1, 8, 8), []
    model = curved()
    hook = model.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    ni_fgsm(norm="l2", eps=1.0, step_size=0.4, steps=2)(model, images, labels)
    hook.remove()
    first = ni_fgsm(norm="l2", eps=1.0, step_size=0.4, steps=1)(model, images, labels)
    assert float((shown[1] - first).abs().mean()) == pytest.approx(0.4 / (3 * 8 * 8) ** 0.5)


def linear(*rows):
    """A 1x1 convolution with the given weights per class."""
    model = nn.Conv2d(3, len(rows), 1).double()
    model.weight.data = torch.tensor(rows, dtype=torch.float64)[:, :, None, None]
    model.bias.data.zero_()
    return model


def gray(batch, height, width):
    return torch.full((batch, 3, height, width), 0.5, dtype=torch.float64)


def point(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


@pytest.mark.parametrize("attack", [bim(eps=0.1, step_size=0.03), pgd(eps=0.1, step_size=0.03), mi_fgsm(eps=0.1)])
def test_linf_optimum_of_a_linear_model(attack):
    # The loss falls with w_y - w_other: every value moves against its sign, to the border of the ball or of [0, 1].
    model = linear([1.0, -2.0, 0.5], [-1.0, 1.0, 0.25])
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0, 0, 0, 0], images[0, 1, 0, 0] = 0.02, 0.97
    labels = torch.randint(2, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    away = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64).view(1, 3, 1, 1) * (1 - 2 * labels[:, None])
    assert torch.allclose(attack(model, images, labels), (images + 0.1 * away).clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("random_start", [False, True])
def test_l2_optimum_of_a_linear_model(random_start):
    # One labelled pixel: the whole budget goes there, along w_other - w_y = (-1.6, 1.2, 0), length 2.
    model, images = linear([0.8, -0.6, 1.0], [-0.8, 0.6, 1.0]), gray(1, 3, 4)
    labels = torch.full((1, 3, 4), 255)
    labels[0, 1, 2] = 0
    attack = pgd(eps=0.3, norm="l2", steps=200, step_size=0.05, random_start=random_start)
    change = (attack(model, images, labels, seeds=[0]) - images)[0]
    expected = torch.zeros_like(change)
    expected[:, 1, 2] = torch.tensor([-0.24, 0.18, 0.0], dtype=torch.float64)
    assert torch.allclose(change, expected, rtol=0, atol=1e-6)


def test_l2_shares_its_budget_among_equal_pixels():
    model, images, labels = (
        linear([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        gray(1, 2, 2),
        torch.zeros(1, 2, 2, dtype=torch.int64),
    )
    change = bim(eps=0.4, norm="l2", steps=5)(model, images, labels) - images
    assert torch.allclose(change[:, 0], torch.full((1, 2, 2), -0.2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert change[:, 1:].abs().max() == 0


def test_momentum_by_hand():
    # g = (1, -3): mean size 2, so (0.5, -1.5); then half of it stays and (0.5, -1.5) is added again.
    ascent = Momentum(decay=0.5)(lambda x: x, BUDGET)
    x = point(1.0, -3.0)
    assert ascent(x).flatten().tolist() == [0.5, -1.5]
    assert ascent(x).flatten().tolist() == [0.75, -2.25]


def test_momentum_ends_with_the_batch():
    momentum, x = Momentum(), point(1.0, -3.0)
    first = momentum(lambda x: x, BUDGET)
    first(x)
    assert momentum(lambda x: x, BUDGET)(x).flatten().tolist() == [0.5, -1.5]


def test_momentum_of_each_image_is_its_own():
    ascent = Momentum()(lambda x: x, BUDGET)
    two = torch.cat([point(1.0, -3.0), point(100.0, 300.0)])
    assert ascent(two).flatten(1).tolist() == [[0.5, -1.5], [0.5, 1.5]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("transform", [Momentum(), Nesterov()])
def test_zero_gradient_leaves_the_momentum(transform, dtype):
    gradients = iter([torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, -3.0]]]]), torch.zeros(1, 1, 1, 2)])
    ascent = transform(lambda x: next(gradients).to(dtype), BUDGET)
    steps = [ascent(torch.zeros(1, 1, 1, 2, dtype=dtype)).flatten().tolist() for _ in range(3)]
    assert steps == [[0, 0], [0.5, -1.5], [0.5, -1.5]]


def test_look_ahead_by_hand():
    # Quadratic loss with its top at (2, 0): gradient top - x. Step 0.1, decay 0.5.
    asked = []

    def gradient(x):
        asked.append(x.flatten().tolist())
        return point(2.0, 0.0) - x

    ascent = Nesterov(decay=0.5)(gradient, BUDGET)
    # g = (1, 3), mean size 2.
    assert ascent(point(1.0, -3.0)).flatten().tolist() == [0.5, 1.5]
    # Asked at (1, -3) + 0.05 * (0.5, 1.5); there g = (0.975, 2.925), again (0.5, 1.5) after division by its mean size.
    assert ascent(point(1.0, -3.0)).flatten().tolist() == pytest.approx([0.75, 2.25], abs=1e-12)
    # Asked at (2, -1) + 0.05 * (0.75, 2.25) = (2.0375, -0.8875): g = (-0.0375, 0.8875), mean size 0.4625.
    third = [0.375 - 0.0375 / 0.4625, 1.125 + 0.8875 / 0.4625]
    assert ascent(point(2.0, -1.0)).flatten().tolist() == pytest.approx(third, abs=1e-12)
    assert asked[0] == [1.0, -3.0]
    assert asked[1] == pytest.approx([1.025, -2.925], abs=1e-12)
    assert asked[2] == pytest.approx([2.0375, -0.8875], abs=1e-12)


@pytest.mark.parametrize(("size", "nsig"), [(1, 3.0), (3, 1.0), (5, 2.0), (15, 3.0)])
def test_kernel_is_a_gaussian(size, nsig):
    points = [-nsig + 2 * nsig * i / (size - 1) for i in range(size)] if size > 1 else [0.0]
    rows = [[math.exp(-(u * u + v * v) / 2) for v in points] for u in points]
    total = sum(map(sum, rows))
    kernel = TranslationInvariance(size, nsig).kernel()
    assert kernel.dtype == torch.float32
    assert torch.allclose(kernel, torch.tensor(rows, dtype=torch.float64).div(total).float(), rtol=1e-6, atol=0)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)


def test_kernel_is_laid_around_a_single_gradient():
    # One colour, one pixel near the border: the kernel appears around it, cut at the border, the other colours stay 0.
    gradient = torch.zeros(1, 3, 6, 7, dtype=torch.float64)
    gradient[0, 1, 1, 3] = 2.0
    ti = TranslationInvariance(5, 2.0)
    smooth = ti(lambda x: gradient, BUDGET)(gradient)
    assert smooth.shape == gradient.shape
    expected = torch.zeros_like(gradient)
    expected[0, 1, :4, 1:6] = 2 * ti.kernel().double()[1:]
    assert torch.allclose(smooth, expected, rtol=0, atol=1e-15)


def test_smoothed_sign_of_two_pixels():
    # Each of two labelled pixels pulls two pixels to either side along. Both reach the middle one: there the pixel that
    # is misclassified wins, whose gradient is p_0 = 0.82 against p_1 = 0.18 of the other.
    model, images = linear([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]), gray(1, 1, 9)
    labels = torch.full((1, 1, 9), 255)
    labels[0, 0, 2], labels[0, 0, 6] = 0, 1
    change = ti_fgsm(eps=0.1, steps=1, step_size=0.1, kernel_size=5)(model, images, labels) - images
    direction = torch.tensor([-1, -1, -1, -1, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert torch.allclose(change[0, :, 0], 0.1 * direction.expand(3, -1), rtol=0, atol=1e-12)


def test_zero_gradient_does_not_move():
    # The model looks at one colour of one labelled pixel; all other values have no gradient.
    images, labels = gray(1, 2, 3), torch.full((1, 2, 3), 255)
    labels[0, 0, 0] = 0
    for attack in (bim(steps=2), mi_fgsm(steps=2), bim(norm="l2", eps=0.1, steps=2)):
        change = attack(linear([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]), images, labels) - images
        assert change[0, 0, 0, 0] < 0
        assert change.ne(0).sum() == 1
        assert torch.equal(attack(linear([0.0] * 3, [0.0] * 3), images, labels), images)


def test_projection_and_clamp():
    ball = Linf(0.2)
    images = point(0.1, 0.5, 0.95).view(1, 3, 1, 1)
    gradient = point(-1e-30, 7.0, 1e30).view(1, 3, 1, 1)
    stepped = ball.step(images, images, gradient, 0.5)
    assert stepped.flatten().tolist() == pytest.approx([0.0, 0.7, 1.0])
