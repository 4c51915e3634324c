"""Copies that leave pixels in their places: SI, Admix, SSA, and the gradient taken straight through."""

import pytest
import torch

from lightning_attack.attacks.base import describe
from lightning_attack.attacks.gradient_transforms.base import Nesterov
from lightning_attack.attacks.input_transforms.base import InputDiversity, views
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import (
    Admix,
    MixMask,
    ScaleCopies,
    SpectrumSimulation,
    StraightThrough,
)
from lightning_attack.attacks.input_transforms.geometry import RandomCrop
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.random import Draws
from tests.attacks.input_transforms.test_spectral import cosines
from tests.attacks.toys import PIXELS, curved, half_right, scene, share_of_differences


def pictures(batch=3, height=9, width=7):
    return scene(batch, height, width)[0].requires_grad_()


def gradient(view, images, weights):
    return torch.autograd.grad((view.images * weights).sum(), images, retain_graph=True)[0]


def test_scales_and_their_gradients():
    images, weights = pictures(), pictures().detach() - 0.5
    seen = list(ScaleCopies(4)(images, Draws([0, 1, 2])))
    assert len(seen) == 4
    for view, factor in zip(seen, (1, 0.5, 0.25, 0.125), strict=True):
        assert torch.equal(view.images, images * factor)
        assert torch.equal(gradient(view, images, weights), weights * factor)


def test_scales_with_momentum_ahead_are_those_of_torchattacks():
    torchattacks = pytest.importorskip("torchattacks", reason="the independent implementation is optional")
    # Its loss is a mean over pixels, ours a sum: powers of two make that an exact factor.
    model = curved()
    images, labels = scene(2, 64, 64, ignored=0)
    labels = half_right(model, images, labels)
    theirs = torchattacks.SINIFGSM(model, eps=PIXELS, alpha=2 / 255, steps=4, decay=1.0, m=3)(images, labels)
    ours = {
        copies: IterativeAttack(
            CrossEntropy(),
            Linf(PIXELS),
            steps=4,
            step_size=2 / 255,
            input_transforms=[ScaleCopies(copies)],
            gradient_transforms=[Nesterov()],
        )(model, images, labels)
        for copies in (1, 3)
    }
    assert torch.equal(ours[3], theirs)
    assert share_of_differences(ours[1], theirs) > 0.01


def test_admix_adds_another_image_without_its_gradient():
    images, seeds = pictures(4), [5, 6, 7, 8]
    weights = torch.rand_like(images)
    draws, pairs = Draws(seeds), set()
    for _ in range(10):
        seen = list(Admix(copies=3, strength=0.25)(images, draws))
        assert len(seen) == 3
        for view in seen:
            added = (view.images - images).detach() / 0.25
            for image in range(4):
                partners = [other for other in range(4) if torch.allclose(added[image], images[other], atol=1e-12)]
                assert len(partners) == 1
                pairs.add((image, partners[0]))
            assert torch.equal(gradient(view, images, weights), weights)
    assert pairs == {(image, other) for image in range(4) for other in range(4) if other != image}


def test_partner_is_drawn_from_the_image_s_own_stream():
    images = pictures(3).detach()
    first = next(Admix()(images, Draws([1, 2, 3]))).images
    second = next(Admix()(images, Draws([9, 2, 8]))).images
    assert torch.equal(first[1], second[1])
    anew = [next(Admix()(images, Draws([seed, 2, 3]))).images for seed in range(8)]
    assert len({float(seen[0].sum()) for seen in anew}) == 2, "two possible partners"
    assert all(torch.equal(seen[1:], first[1:]) for seen in anew)


def test_admix_of_one_image():
    image = pictures(1)
    with pytest.raises(ValueError, match="give partners, or a batch of 2"):
        next(Admix()(image, Draws([0])))
    (view,) = Admix(copies=3, strength=0)(image, Draws([0]))
    assert view.images is image
    assert Admix().mixes
    assert not Admix(strength=0).mixes


def test_admix_with_partners_of_the_data_set():
    """One view shows one of the image's own partners; other images of the batch have no say."""
    images, partners = pictures(3).detach(), torch.rand(3, 2, *pictures(1).shape[1:], dtype=torch.float64)
    together = list(Admix(copies=5)(images, Draws([4, 5, 6], partners=partners)))
    alone = list(Admix(copies=5)(images[1:2], Draws([5], partners=partners[1:2])))
    chosen = set()
    for view, single in zip(together, alone, strict=True):
        assert torch.equal(view.images[1], single.images[0])
        for image in range(3):
            mixed = (view.images[image] - images[image]) / 0.2
            which = [which for which in range(2) if torch.allclose(mixed, partners[image, which], atol=1e-12)]
            assert len(which) == 1
            chosen.update(which)
    assert chosen == {0, 1}


def test_admix_then_scales():
    images, weights = pictures(2), pictures(2).detach() - 0.5
    seen = list(views([Admix(copies=3), ScaleCopies(2)], images, Draws([0, 1])))
    mixed = images + 0.2 * images.flip(0)  # of two images each has one partner
    assert len(seen) == 6
    for number, view in enumerate(seen):
        factor = 1 / 2 ** (number % 2)
        assert torch.allclose(view.images, mixed * factor, rtol=0, atol=1e-15)
        assert torch.allclose(gradient(view, images, weights), weights * factor, rtol=0, atol=1e-15)


def test_spectrum_is_changed_as_the_formula_says():
    images, seeds = pictures(2, 13, 8).detach(), [3, 4]
    seen = list(SpectrumSimulation(copies=2, rho=0.4, sigma="51/255")(images, Draws(seeds)))
    assert len(seen) == 2
    rows, columns, draws = cosines(13), cosines(8), Draws(seeds)
    for view in seen:
        noise = 0.2 * draws.normal("spectrum noise", (3, 13, 8)).double()
        mask = draws.uniform("spectrum mask", (3, 13, 8), 0.6, 1.4).double()
        assert (mask.max() - mask.min()) > 0.7
        spectrum = (rows @ (images + noise) @ columns.T) * mask
        assert torch.allclose(view.images, rows.T @ spectrum @ columns, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 17), (97, 61)])
@pytest.mark.parametrize("sigma", [0, 0.0, "0"])
def test_unchanged_spectrum_is_the_image(height, width, sigma):
    images = pictures(2, height, width)
    view = next(SpectrumSimulation(rho=0, sigma=sigma)(images, Draws([0, 1])))
    assert torch.allclose(view.images, images, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "transform",
    [ScaleCopies(3), SpectrumSimulation(2), Admix()],
    ids=lambda value: type(value).__name__,
)
def test_straight_through_keeps_views_and_passes_gradients_on(transform):
    images, seeds = pictures(3, 8, 8), [1, 2, 3]
    weights = torch.rand_like(images)
    through = StraightThrough(transform)
    pairs = list(zip(through(images, Draws(seeds)), transform(images, Draws(seeds)), strict=True))
    for view, inner in pairs:
        assert torch.equal(view.images, inner.images)
        assert torch.equal(view.undo(weights), inner.undo(weights))
        assert torch.equal(gradient(view, images, weights), weights)
    assert (through.spatial, through.partial, through.mixes) == (False, transform.partial, transform.mixes)
    if not isinstance(transform, Admix):
        view, inner = pairs[-1]
        assert not torch.allclose(gradient(inner, images, weights), weights), "the true gradient is another one"


@pytest.mark.parametrize("transform", [InputDiversity(), RandomCrop(undo=False)])
def test_straight_through_refuses_what_moves_pixels(transform):
    with pytest.raises(ValueError, match=f"{type(transform).__name__} moves pixels"):
        StraightThrough(transform)


def test_reports_show_settings_only():
    inner = {"class": "SpectrumSimulation", "copies": 2, "rho": 0.5, "sigma": 0.2}
    through = StraightThrough(SpectrumSimulation(2, sigma="51/255"))
    assert describe(through) == {"class": "StraightThrough", "transform": inner}
    assert describe(Admix()) == {"class": "Admix", "copies": 3, "strength": 0.2}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScaleCopies(0), "copies=0: must be 1 or more"),
        (lambda: Admix(copies=0), "copies=0"),
        (lambda: Admix(strength=-0.1), "strength=-0.1: must be between 0 and 1"),
        (lambda: Admix(strength=float("nan")), "strength=nan"),
        (lambda: SpectrumSimulation(copies=0), "copies=0"),
        (lambda: SpectrumSimulation(rho=1.5), "rho=1.5: must be between 0 and 1"),
        (lambda: SpectrumSimulation(sigma="-8/255"), "sigma='-8/255': .* or 0 for no noise"),
        (lambda: SpectrumSimulation(sigma=float("nan")), "sigma=nan"),
    ],
)
def test_settings_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_masks_of_other_images_by_hand():
    images, partners = torch.full((1, 3, 1, 1), 0.8), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)
    seen = list(MixMask(scales=3, masks=8, low=0.25, high=0.75, mix=0.5)(images, Draws([0], partners=partners)))
    assert len(seen) == 24
    found = {round(float(view.images[0, 0]), 3) for view in seen}
    assert found == {round(0.8 * scale * mask, 3) for scale in (0.25, 0.5, 0.75) for mask in (0.5, 1.5)}
    (plain,) = MixMask(scales=1, masks=1, low=0.5, high=1.0, mix=0.0)(images, Draws([0]))
    assert torch.equal(plain.images, images)


@pytest.mark.parametrize(
    "settings", [{"low": 0.0}, {"low": 0.9}, {"high": 1.1}, {"mix": 1.1}, {"scales": 0}, {"masks": 0}]
)
def test_mask_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        MixMask(**settings)


def test_colours_by_formula():
    images = pictures().detach()
    transform, draws = RandomColour(0.8, 0.4, 0.2), Draws([0, 1, 2])
    (view,) = transform(images, Draws([0, 1, 2]))
    g, c, b = (
        draws.uniform(f"colour {name}", (1, 1, 1), low, high).double()
        for name, low, high in (("grey", 0, 0.8), ("contrast", 0.6, 1.4), ("brightness", -0.2, 0.2))
    )
    grey = images.sum(1, keepdim=True) / 3
    assert torch.allclose(view.images, (((1 - g) * images + g * grey) - 0.5) * c + 0.5 + b, atol=1e-12)
    (same,) = RandomColour(0.0, 0.0, 0.0)(images, Draws([0, 1, 2]))
    assert torch.allclose(same.images, images, atol=1e-15)


@pytest.mark.parametrize("settings", [{"grey": 1.1}, {"contrast": 1.1}, {"brightness": -0.1}])
def test_colour_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        RandomColour(**settings)
