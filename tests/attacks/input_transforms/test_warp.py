"""DeCowA: the spline against its system of equations, the way back, and the step of the bend by differences."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks import (
    ConstrainedWarp,
    CrossEntropy,
    Draws,
    IterativeAttack,
    Linf,
    Momentum,
    RandomChain,
    RandomFlip,
    SkipGradients,
    decowa,
)  # fmt: skip
from lightning_attack.attacks.input_transforms.warp import Bend
from lightning_attack.predict.cost import count_passes
from tests.attacks.toys import PIXELS, curved, half_right, rich, scene


def grid_of(points, size, moves):
    """T on the pixels of an image as in the paper: a thin-plate spline through the moved points, one by one."""
    side = torch.linspace(-1, 1, points, dtype=torch.float64)
    start = [(x, y) for y in side for x in side]
    inner = [i for i, (x, y) in enumerate(start) if abs(x) < 1 and abs(y) < 1]
    goal = torch.tensor(start, dtype=torch.float64)
    for i, move in zip(inner, moves, strict=True):
        goal[i] += move
    count = len(start)

    def kernel(x, y, point):
        square = (x - point[0]) ** 2 + (y - point[1]) ** 2
        return square * torch.log(square) if square > 0 else torch.zeros(())

    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    for i, (x, y) in enumerate(start):
        for j, other in enumerate(start):
            system[i, j] = kernel(x, y, other)
        system[i, count:] = system[count:, i] = torch.tensor([1, x, y])
    solved = torch.linalg.solve(system, torch.cat([goal, torch.zeros(3, 2, dtype=torch.float64)]))
    height, width = size
    grid = torch.zeros(height, width, 2, dtype=torch.float64)
    for row, y in enumerate(torch.linspace(-1, 1, height, dtype=torch.float64)):
        for column, x in enumerate(torch.linspace(-1, 1, width, dtype=torch.float64)):
            parts = torch.stack([*(kernel(x, y, point).double() for point in start), torch.ones(()).double(), x, y])
            grid[row, column] = parts @ solved
    return grid


@pytest.mark.parametrize(("points", "moves"), [(3, [[0.3, -0.4]]), (4, [[0.1, 0.2], [-0.1, 0.1], [0.2, 0], [0, -0.2]])])
def test_the_image_is_bent_by_a_thin_plate_spline(points, moves):
    moves = torch.tensor(moves, dtype=torch.float64)
    image = torch.rand(1, 2, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.grid_sample(image, grid_of(points, (9, 7), moves)[None], align_corners=True)
    assert torch.allclose(Bend(points, (9, 7), moves).show(image), expected, rtol=0, atol=1e-9)


def test_pixels_go_back_to_where_they_were():
    moves = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    bend, shape = Bend(3, (41, 33), moves), (1, 1, 41, 33)
    shown = bend.back(torch.ones(shape, dtype=torch.float64)) > 0.99
    assert shown.double().mean() > 0.85, "a gentle bend hides no more than places at the border"
    x = torch.linspace(-1, 1, 33, dtype=torch.float64).expand(shape)
    y = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None].expand(shape)
    for smooth in (x, y, x * y + y**2):
        assert (bend.show(smooth) - smooth).abs().max() > 0.1
        assert (bend.back(bend.show(smooth)) - smooth)[shown].abs().mean() < 0.01


def test_what_a_fold_hides_has_no_logits():
    bend = Bend(3, (40, 40), torch.tensor([[1.0, 1.0]]))
    shown = bend.back(torch.ones(1, 1, 40, 40))[0, 0]
    assert 0.3 < shown.mean() < 1
    places, found = bend._search()
    assert (shown[~found] == 0).all()
    assert (shown[3:-3, 3:-3][found[3:-3, 3:-3]] > 0.99).float().mean() > 0.9, "only at the border are there others"
    phi, _ = bend._spline(places, slopes=False)
    miss = (places + phi @ bend.moves - bend._pixels((40, 40))).norm(dim=-1)
    assert miss[found].max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_logits_are_not_mixed_with_those_of_the_surroundings(seed):
    ones = torch.ones(2, 3, 64, 64)
    (view,) = ConstrainedWarp(3, 2.0, rho=0)(ones, Draws([seed, seed + 10]))
    shown = view.undo(torch.ones(2, 1, 64, 64)) > 0.99
    assert 0.3 < shown.double().mean() < 1
    # The view is 1 on the image and 0 around it: that much of a pixel's logits comes from the image.
    assert view.undo(view.images[:, :1])[shown].min() > 0.98


def loss_of(model, image, label, moves):
    """Mean loss of the labelled pixels that are shown."""
    bend = Bend(3, image.shape[-2:], moves)
    shown = bend.back(torch.ones_like(image[None, :1]))[0, 0] > 0.99
    logits = bend.back(model(bend.show(image[None])))
    return F.cross_entropy(logits, torch.where(shown, label, 255)[None], ignore_index=255)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_attack_is_that_of_a_loop(targeted):
    model, (images, labels) = curved(), scene(2, 10, 12)
    labels = half_right(model, images, labels)
    attack = IterativeAttack(
        CrossEntropy(), Linf(PIXELS), 2, 0.01, input_transforms=[ConstrainedWarp(strength=0.8, rho=0.05)],
        gradient_transforms=[Momentum()],
    )  # fmt: skip
    with count_passes(model) as passes:
        found = attack(model, images, labels, [5, 6], targeted=targeted)
    assert passes == {"forward": 8, "backward": 8}
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        draws, x, momentum = Draws([5 + row]), image, 0
        for _ in range(2):
            moves = draws.uniform("warp", (1, 2), -0.4, 0.4)[0].double()
            slope = torch.zeros(1, 2, dtype=torch.float64)
            for axis in range(2):
                step = torch.zeros(1, 2, dtype=torch.float64)
                step[0, axis] = 1e-6
                slope[0, axis] = (
                    loss_of(model, x, label, moves + step) - loss_of(model, x, label, moves - step)
                ) / 2e-6
            assert slope.abs().max() > 1e-2
            moves = moves + (0.05 if targeted else -0.05) * slope
            x = x.detach().requires_grad_()
            loss = loss_of(model, x, label, moves)
            gradient = torch.autograd.grad(-loss if targeted else loss, x)[0]
            momentum = momentum + gradient / gradient.abs().mean()
            x = (image + (x + 0.01 * momentum.sign() - image).clamp(-PIXELS, PIXELS)).clamp(0, 1)
        assert (found[row] - x).abs().mean() < 1e-4, "signs of a few values may differ: the slope is by differences"


def test_without_its_step_it_is_a_random_bend():
    images, _ = scene(2, 10, 12)
    plain, adapted = (next(ConstrainedWarp(rho=rho)(images, Draws([1, 2]))) for rho in (0.0, 0.01))
    assert torch.equal(plain.images, adapted.images.detach())
    assert plain.warp is None
    moved = adapted.warp.at(adapted.warp.values.detach() + 0.1)
    assert moved.warp is None
    assert not torch.equal(moved.images, plain.images)
    still = next(ConstrainedWarp(strength=0)(images, Draws([1, 2])))
    assert torch.allclose(still.images, images, rtol=0, atol=1e-12)


def test_with_other_parts():
    """Views before it, clean features in the same view, and a source that is changed."""
    attack = decowa(steps=2, input_transforms=[RandomFlip(1.0)], source_transforms=[SkipGradients(0.5)])
    model, (images, labels) = rich(attack, curved()), scene(2, 10, 12)
    both = attack(model, images, labels, [1, 2])
    assert torch.equal(attack(model, images[1:], labels[1:], [2])[0], both[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstrainedWarp(points=2), "points=2: must be 3 or more"),
        (lambda: ConstrainedWarp(rho=-1), "rho=-1: must be numbers, 0 or more"),
        (lambda: ConstrainedWarp(strength=float("nan")), "strength=nan"),
        (lambda: RandomChain([ConstrainedWarp(), RandomFlip()], most=1), "ConstrainedWarp adapts to the network"),
        (
            lambda: IterativeAttack(CrossEntropy(), Linf(), input_transforms=[ConstrainedWarp(), RandomFlip()]),
            "ConstrainedWarp takes a step of its own at what the network is shown; put it last",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
