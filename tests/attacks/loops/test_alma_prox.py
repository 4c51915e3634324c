"""`ALMAProx` against smallest norms that are known, and its proximal step against a grid."""

import pytest
import torch

from lightning_attack.attacks.loops.alma_prox import ALMAProx, proximal_linf
from lightning_attack.attacks.norms import Linf
from tests.attacks.loops.linear import THREE, TWO, linear_scene, needed
from tests.attacks.toys import (
    unfooled,
)


@pytest.mark.parametrize("threshold", [0.99, 0.9])
@pytest.mark.parametrize(
    ("model", "targeted"), [(TWO, False), (TWO, True), (THREE, False)], ids=["two", "two-targeted", "three"]
)
def test_alma_prox_finds_the_smallest_norm(model, targeted, threshold):
    images, labels = linear_scene(model, targeted)
    smallest = needed(model, images, labels, threshold, targeted)
    seen = []
    adversarial = ALMAProx(400, threshold)(model, images, labels, targeted=targeted, log=lambda _, f: seen.append(f))
    found = Linf(1.0).size(adversarial - images)
    wrong = unfooled(model, adversarial, labels, targeted) / (labels != 255).flatten(1).sum(1)
    assert bool((wrong <= 1 - threshold + 1e-9).all())
    assert bool((found >= smallest - 1e-9).all())
    assert bool((found <= 1.05 * smallest).all()), found / smallest
    assert torch.equal(seen[-1]["linf"], found)
    assert bool(seen[-1]["success"].all())
    assert bool(seen[0]["linf"].isnan().all())


def test_proximal_step_against_a_grid():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, 3, 2, 2, generator=generator, dtype=torch.float64)
    metric = torch.rand(3, 3, 2, 2, generator=generator, dtype=torch.float64) + 0.1
    low, high = -torch.rand(3, 3, 2, 2, generator=generator, dtype=torch.float64), torch.full_like(v, 0.7)
    lengths = torch.tensor([0.05, 0.5, 100.0], dtype=torch.float64).view(-1, 1, 1, 1)
    ours = proximal_linf(v, lengths, metric, low, high)

    def value(u):
        return lengths.flatten() * u.flatten(1).abs().amax(1) + (metric * (u - v) ** 2).flatten(1).sum(1) / 2

    cut = v.clamp(low, high)
    best = torch.stack([value(cut.clamp(-t / 2000, t / 2000)) for t in range(2001)]).amin(0)
    assert bool((value(ours) <= best + 1e-6).all())
    assert float(ours[2].abs().max()) < 1e-6
