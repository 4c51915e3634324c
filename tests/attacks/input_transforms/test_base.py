"""What all input transforms keep to, input diversity, and how views of several transforms are put together."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attack.attacks import (
    CrossEntropy,
    GradientTransform,
    InputDiversity,
    InputTransform,
    IterativeAttack,
    Linf,
    bim,
    di_fgsm,
    transegpgd,
)
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import View, views
from lightning_attack.attacks.input_transforms.chain import RandomChain
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import Admix, ScaleCopies, SpectrumSimulation, StraightThrough
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.input_transforms.noise import RandomNoise
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import CLASSES, curved, half_right, scene, share_of_differences

seldom = settings(max_examples=40, deadline=None, derandomize=True, database=None)


SINGLE = {  # name: transform, number of views, whether it draws
    "diversity": (InputDiversity(0.5, 0.8), 1, True),
    "scales": (ScaleCopies(3), 3, False),
    "spectrum": (SpectrumSimulation(2), 2, True),
    "straight": (StraightThrough(SpectrumSimulation(2)), 2, True),
    "scaling": (DynamicScaling(), 1, True),
    "crop": (RandomCrop(), 1, True),
    "flip": (RandomFlip(), 1, True),
    "affine": (RandomAffine(), 1, True),
    "blocks": (BlockShuffle(copies=2), 2, True),
    "regions": (LocalRegions(copies=3), 3, True),
    "colour": (RandomColour(), 1, True),
    "noise": (RandomNoise(), 1, True),
    "chain": (RandomChain([RandomFlip(1.0), RandomAffine(), RandomColour(), ScaleCopies(3)], 2, 4, copies=2), 2, True),
}
EVERY = SINGLE | {"admix": (Admix(copies=2), 2, True)}
SIZES = [(1, 1), (8, 17), (97, 61)]


def steps_of(transform, images, draws, steps=2):
    """Views, their pixels moved back, and the gradient of both, of several steps."""
    images = images.detach().requires_grad_()
    found = []
    for _ in range(steps):
        for view in transform(images, draws):
            back = view.undo(view.images.square())
            (gradient,) = torch.autograd.grad((back * back).sum(), images, retain_graph=True)
            found.append((view.images.detach(), back.detach(), gradient))
    return found


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", SINGLE)
def test_a_batch_is_its_images_one_by_one(name, height, width):
    transform, count, _ = SINGLE[name]
    images, seeds = scene(4, height, width)[0], [4, 5, 6, 7]
    together = steps_of(transform, images, Draws(seeds))
    assert len(together) == 2 * count
    for index in range(4):
        alone = steps_of(transform, images[index : index + 1], Draws(seeds[index : index + 1]))
        for found, expected in zip(together, alone, strict=True):
            assert all(torch.equal(a[index : index + 1], b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", EVERY)
def test_views_of_any_size_and_type(name, height, width, dtype):
    transform, count, _ = EVERY[name]
    images = scene(2, height, width, dtype=dtype)[0]
    seen = list(transform(images, Draws([1, 2])))
    assert len(seen) == count
    for view in seen:
        assert view.images.dtype == dtype
        assert view.images.isfinite().all()
        logits = view.images.new_ones(2, 7, *view.images.shape[-2:])
        known = view.undo(logits)
        assert known.shape == (2, 7, height, width)
        assert transform.partial or (known > 0.99).all()
        assert transform.spatial or view.images.shape == images.shape


@pytest.mark.parametrize("name", EVERY)
def test_randomness_follows_seed_and_step(name):
    transform, count, draws_numbers = EVERY[name]
    images = scene(3, 24, 20)[0]

    def pictures(seeds):
        return torch.stack([view for view, _, _ in steps_of(transform, images, Draws(seeds), steps=8)])

    first = pictures([1, 2, 3])
    assert torch.equal(first, pictures([1, 2, 3]))
    assert torch.equal(first, pictures([1, 2, 4])) is not draws_numbers
    assert torch.equal(first[:, :2], pictures([1, 2, 4])[:, :2])
    assert all(torch.equal(first[:count], later) for later in first.split(count)) is not draws_numbers
    before = torch.get_rng_state()
    list(transform(images, Draws([1, 2, 3])))
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn from the global generator"


@pytest.mark.parametrize("name", [name for name, (part, *_) in EVERY.items() if not isinstance(part, StraightThrough)])
def test_gradients_are_those_of_finite_differences(name):
    images = scene(2, 5, 4)[0].requires_grad_()
    weights = torch.linspace(-1, 1, 5 * 4, dtype=torch.float64).view(5, 4)

    def looks(x):
        return sum((view.undo(view.images.sin()) * weights).sum() for view in EVERY[name][0](x, Draws([1, 2])))

    if name == "admix":  # whose partners count as constants
        (gradient,) = torch.autograd.grad(looks(images), images)
        partners = images.detach().flip(0)
        assert torch.allclose(gradient, 2 * weights * (images + 0.2 * partners).cos(), rtol=0, atol=1e-12)
    else:
        assert torch.autograd.gradcheck(looks, images)


def test_what_transforms_say_of_themselves():
    assert {name: (part.spatial, part.partial, part.mixes) for name, (part, *_) in EVERY.items()} == {
        "diversity": (True, False, False),
        "scales": (False, False, False),
        "spectrum": (False, False, False),
        "straight": (False, False, False),
        "scaling": (True, False, False),
        "crop": (True, True, False),
        "flip": (True, False, False),
        "affine": (True, True, False),
        "blocks": (True, False, False),
        "regions": (True, True, False),
        "admix": (False, False, True),
        "noise": (False, False, False),
        "colour": (False, False, False),
        "chain": (True, True, False),
    }
    assert RandomFlip(undo=False).spatial


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("limit", "active"),
    [
        (ScaleCopies(1), ScaleCopies(2)),
        (StraightThrough(ScaleCopies(1)), StraightThrough(ScaleCopies(2))),
        (Admix(strength=0), Admix(copies=1)),
        (DynamicScaling(1, 1), DynamicScaling(0.5, 1)),
        (RandomCrop(1), RandomCrop(0.7)),
        (RandomFlip(0), RandomFlip(1)),
        (BlockShuffle(1), BlockShuffle(2)),
        (LocalRegions(1), LocalRegions(2)),
        (LocalRegions(keep=1), LocalRegions(keep=0.7)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_transforms_switched_off_are_bim(limit, active, dtype):
    model = curved(dtype)
    images, labels = scene(2, 24, 20, dtype=dtype)
    labels = half_right(model, images, labels)
    plain = bim(steps=3)(model, images, labels)
    assert torch.equal(bim(steps=3, input_transforms=[limit])(model, images, labels, seeds=[1, 2]), plain)
    other = bim(steps=3, input_transforms=[active])(model, images, labels, seeds=[1, 2])
    assert share_of_differences(other, plain) > 0.01


def regions(height, width):
    """A label map of broad blocks."""
    rows, columns = torch.arange(height) * 3 // height, torch.arange(width) * 4 // width
    return (rows[:, None] * 2 + columns) % CLASSES


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 48), (40, 100)])
@pytest.mark.parametrize("scale", [0.9, 0.5])
def test_undo_brings_predictions_back_to_their_pixels(height, width, scale):
    # The image shows its labels, one channel per class; the model reads them off.
    labels = regions(height, width).expand(6, -1, -1)
    image = F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).double()
    view = next(InputDiversity(scale=scale, prob=1.0)(image, Draws(range(6))))
    assert view.images.shape == image.shape
    with_undo = (view.undo(view.images).argmax(1) == labels).double().mean()
    without = (view.images.argmax(1) == labels).double().mean()
    assert with_undo > 0.95
    assert without < with_undo - 0.04
    left_alone = next(InputDiversity(scale=scale, prob=1.0, undo=False)(image, Draws(range(6))))
    assert torch.equal(left_alone.images, view.images)
    assert left_alone.undo(view.images) is view.images


def test_view_is_the_resized_image_on_black():
    image = torch.rand(1, 3, 20, 30, dtype=torch.float64) + 0.1
    diversity = InputDiversity(scale=0.6, prob=1.0)
    (box,) = diversity.boxes(20, 30, Draws([3]))
    shown = next(diversity(image, Draws([3]))).images
    inside = shown[..., box.top : box.top + box.height, box.left : box.left + box.width]
    resized = F.interpolate(image, (box.height, box.width), mode="bilinear", align_corners=False)
    assert torch.equal(inside, resized)
    assert shown.ne(0).sum() == inside.numel()


@seldom
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    scale=st.floats(0.01, 0.99),
    seed=st.integers(0, 10**6),
)
def test_boxes_stay_inside(height, width, scale, seed):
    for box in InputDiversity(scale=scale, prob=1.0).boxes(height, width, Draws(range(seed, seed + 20))):
        for start, length, full in ((box.top, box.height, height), (box.left, box.width, width)):
            assert max(1, int(scale * full)) <= length <= max(1, full - 1)
            assert 0 <= start <= full - length


def test_boxes_reach_all_sizes_and_places():
    boxes = InputDiversity(scale=0.5, prob=1.0).boxes(8, 16, Draws(range(600)))
    assert {box.height for box in boxes} == {4, 5, 6, 7}
    assert {box.width for box in boxes} == set(range(8, 16))
    assert {box.top for box in boxes if box.height == 4} == {0, 1, 2, 3, 4}
    assert {box.left for box in boxes if box.width in (8, 9)} >= set(range(8))
    # Width in proportion to the height, up to a pixel or two of rounding.
    assert all(abs(box.width - 2 * box.height) <= 2 for box in boxes)


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (1.0, 400), (0.3, pytest.approx(120, abs=40))])
def test_probability(prob, expected):
    boxes = InputDiversity(prob=prob).boxes(32, 32, Draws(range(400)))
    assert sum(box is not None for box in boxes) == expected


def test_boxes_are_drawn_per_image_and_anew_each_step():
    diversity = InputDiversity(scale=0.5, prob=0.7)
    together, second, backwards = Draws([1, 2, 3]), Draws([2]), Draws([3, 2, 1])
    steps = []
    for _ in range(8):
        boxes = diversity.boxes(64, 48, together)
        assert diversity.boxes(64, 48, second) == [boxes[1]]
        assert diversity.boxes(64, 48, backwards) == boxes[::-1]
        steps.append(boxes[1])
    assert len(set(steps)) > 3
    assert None in steps


def test_gradient_reaches_the_image():
    image = torch.rand(2, 3, 24, 36, dtype=torch.float64, requires_grad=True)
    view = next(InputDiversity(scale=0.9, prob=1.0)(image, Draws([1, 2])))
    weights = torch.rand_like(image)
    (gradient,) = torch.autograd.grad((view.undo(view.images) * weights).sum(), image)
    # Resizing and back preserves brightness in the mean: so does the gradient, and nearly every pixel has one.
    assert float(gradient.ne(0).double().mean()) > 0.95
    assert float(gradient.mean()) == pytest.approx(0.5, abs=0.05)


class Shift(InputTransform):
    """One view: rolled to the right."""

    def __call__(self, images, draws):
        yield View(images.roll(1, -1), lambda logits: logits.roll(-1, -1))


class Mirrored(InputTransform):
    """Two views: the image and its mirror image."""

    def __call__(self, images, draws):
        yield View(images, lambda logits: logits)
        yield View(images.flip(-1), lambda logits: logits.flip(-1))


class Darker(InputTransform):
    """Two views that share a product, whose gradient needs what it was computed from."""

    def __call__(self, images, draws):
        dark = images * images
        yield View(dark, lambda logits: logits)
        yield View(dark.flip(-1), lambda logits: logits.flip(-1))


class Spy(GradientTransform):
    """Keeps the gradients that it is given."""

    def __init__(self):
        self.seen = []

    def __call__(self, gradient, budget):
        def spy(x):
            self.seen.append(gradient(x))
            return self.seen[-1]

        return spy


def test_undo_runs_backwards():
    # Shift and mirror do not commute: undone in the wrong order, the pixels would end two places off.
    image = torch.arange(5.0).view(1, 1, 1, 5)
    seen = list(views([Shift(), Mirrored()], image, Draws([0])))
    assert [view.images.flatten().tolist() for view in seen] == [[4, 0, 1, 2, 3], [3, 2, 1, 0, 4]]
    assert all(torch.equal(view.undo(view.images), image) for view in seen)


def test_views_multiply():
    image = torch.rand(1, 3, 4, 5)
    assert len(list(views([Mirrored(), Shift(), Mirrored()], image, Draws([0])))) == 4
    (only,) = views([], image, Draws([0]))
    assert only.images is image
    assert only.undo(image) is image


@pytest.mark.parametrize(
    "transforms",
    [[Mirrored()], [Shift(), Mirrored()], [Mirrored(), Shift()], [Darker()]],
    ids=lambda transforms: "+".join(type(transform).__name__ for transform in transforms),
)
def test_gradient_is_the_mean_over_the_views(transforms):
    model = curved()
    images, labels = scene(2, 8, 9)
    spy = Spy()
    attack = IterativeAttack(CrossEntropy(), Linf(), 1, input_transforms=transforms, gradient_transforms=[spy])
    attack(model, images, labels)
    x = images.clone().requires_grad_()
    losses = [
        F.cross_entropy(view.undo(model(view.images)), labels, ignore_index=255, reduction="sum")
        for view in views(transforms, x, Draws([0, 1]))
    ]
    assert len(losses) == 2
    (mean,) = torch.autograd.grad(sum(losses) / 2, x)
    assert torch.allclose(spy.seen[0], mean, rtol=1e-12, atol=1e-12)
    plain = Spy()
    IterativeAttack(CrossEntropy(), Linf(), 1, gradient_transforms=[plain])(model, images, labels)
    assert share_of_differences(spy.seen[0].sign(), plain.seen[0].sign()) > 0.01


def test_figures_are_those_of_the_first_view():
    # The second view is the mirror image, whose share of right pixels differs.
    model = curved()
    images, labels = scene(2, 12, 10)
    labels = half_right(model, images, labels)
    logs = {}
    for name, transforms in (("plain", []), ("views", [Mirrored()])):
        log = logs.setdefault(name, [])
        attack = transegpgd(steps=1, random_start=False, input_transforms=transforms)
        attack(model, images, labels, [1, 2], log=lambda step, figures, log=log: log.append(figures))
    assert {k: v.tolist() for k, v in logs["views"][0].items()} == {k: v.tolist() for k, v in logs["plain"][0].items()}


def test_further_transforms_of_a_preset_come_first():
    attack = di_fgsm(input_transforms=[Shift()])
    assert [type(part) for part in attack.input_transforms] == [Shift, InputDiversity]


def test_undo_keeps_stage_weights_at_their_pixels():
    # The model reads the labels off the image: shown smaller and undone, nearly all its pixels stay right.
    images = F.one_hot(regions(48, 64) % 3, 3).permute(2, 0, 1)[None].double() * 0.8 + 0.1
    labels = regions(48, 64)[None] % 3
    shares = {}
    for undo in (True, False):
        di_fgsm(steps=1, scale=0.5, prob=1.0, undo=undo)(
            lambda x: 20 * x,
            images,
            labels,
            [4],
            log=lambda step, figures, undo=undo: shares.update({undo: figures["p_t"]}),
        )
    assert shares[True] > 0.95
    assert shares[False] < 0.85
