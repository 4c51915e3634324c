"""Integrated gradients against their formula on networks whose gradient is known."""

import numpy as np
import pytest
import torch

from lightning_attack.attacks import Draws, IntegratedGradients, MovedCopies
from lightning_attack.attacks.input_transforms.base import views
from tests.attacks.toys import scene


def gradient(transforms, images, seeds, slope):
    """Sum over the views of the gradient of a loss whose slope at v is `slope(v)`, pulled back to the image."""
    x = images.clone().requires_grad_()
    total = torch.zeros_like(images)
    for view in views(transforms, x, Draws(seeds)):
        total += torch.autograd.grad(view.images, x, slope(view.images.detach()), retain_graph=True)[0]
    return total


def test_from_black():
    """The loss sum(v^3): its integral along the way, times x, is x^3, and 20 points are a Riemann sum of it."""
    images = scene(2, 4, 5)[0]
    found = gradient([IntegratedGradients("black", points=20)], images, [0, 1], lambda v: 3 * v**2) / 20
    expected = sum(3 * (k / 20 * images) ** 2 * images for k in range(1, 21)) / 20
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(found, images**3, atol=0.1)


def test_along_a_random_path():
    """Each point lies within the noise of the straight way; the gradient there counts as on the way."""
    images = scene(2, 4, 5)[0]
    plain, noisy = (IntegratedGradients("black", points=3, noise=noise) for noise in (0, "2/255"))
    offsets = [
        view.images - straight.images
        for view, straight in zip(noisy(images, Draws([0, 1])), plain(images, Draws([0, 1])), strict=True)
    ]
    sizes = torch.stack(offsets).abs()
    assert 1.8 / 255 < sizes.max() <= 2 / 255
    assert not torch.equal(offsets[0], offsets[1])
    found = gradient([noisy], images, [0, 1], lambda v: v)
    assert torch.allclose(
        found, sum(k / 3 * images + offset for k, offset in zip((1, 2, 3), offsets, strict=True)) * images
    )


@pytest.mark.parametrize("regions", [2, 4])
def test_quantized_baselines(regions):
    images, seeds = scene(2, 6, 5)[0], [3, 4]
    transform = IntegratedGradients("quantized", 2, 0.65, 1, regions)
    base = np.empty(images.shape)
    for row, seed in enumerate(seeds):
        cuts = Draws([seed]).uniform("quantization", (3, regions - 1))[0].double().numpy()
        for colour, values in enumerate(images[row].numpy()):
            low, high = values.min(), values.max()
            ends = sorted([low, *(low + cut * (high - low) for cut in cuts[colour])])
            for place, value in np.ndenumerate(values):
                base[row, colour][place] = max(end for end in ends if end <= value)
    base = torch.as_tensor(base)
    assert torch.allclose(transform.quantized(images, Draws(seeds)), base, atol=1e-12)
    assert (base <= images).all()
    way = images - base
    shown = [view.images for view in transform(images, Draws(seeds))]
    assert torch.allclose(shown[0], base + 0.325 * way, atol=1e-12)
    assert torch.allclose(shown[1], base + 0.825 * way, atol=1e-12)
    found = gradient([transform], images, seeds, torch.cos)
    assert torch.allclose(found, sum(torch.cos(view) for view in shown) * way, atol=1e-12)


def test_the_way_is_that_of_what_is_shown():
    """Behind a mirror: the way of the mirrored image times the gradient there, and only then mirrored back."""
    images = scene(1, 4, 6)[0]
    seed = next(s for s in range(99) if 8 <= int(10 * Draws([s]).uniform_on_host("move kind")[0]) < 9)
    transforms = [MovedCopies(copies=1), IntegratedGradients("black", points=1)]
    found = gradient(transforms, images, [seed], lambda v: torch.arange(6).double().expand_as(v))
    assert torch.allclose(found, images * torch.arange(6) + images * torch.arange(5, -1, -1), atol=1e-12)


def test_several_baselines_differ():
    first, second = (view.images for view in IntegratedGradients(baselines=2)(scene(1, 6, 5)[0], Draws([0])))
    assert torch.allclose(first, second), "at position 1 all paths end at the image"
    first, second = (view.images for view in IntegratedGradients(baselines=2, position=0.5)(scene(1)[0], Draws([0])))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"baseline": "white"}, "baseline='white': must be black or quantized"),
        ({"points": 0}, "points=0"),
        ({"position": 0.0}, "position=0.0"),
        ({"baselines": 0}, "baselines=0"),
        ({"baseline": "black", "baselines": 2}, "only one black image"),
        ({"regions": 1}, "regions=1"),
    ],
)
def test_out_of_range(settings, says):
    with pytest.raises(ValueError, match=says):
        IntegratedGradients(**settings)
