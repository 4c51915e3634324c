import pytest
import torch

from lightning_attack.attacks import Draws, RandomNoise, mi_fgsm
from tests.attacks.toys import curved, scene


def test_noise_is_normal_of_the_given_size_and_new_in_each_step():
    images = torch.full((2, 3, 96, 96), 0.5, dtype=torch.float64)
    draws = Draws([1, 2])
    first, second = (next(RandomNoise("16/255")(images, draws)).images - images for _ in range(2))
    for noise in (first, second):
        assert noise.std().item() == pytest.approx(16 / 255, rel=0.02)
        assert abs(noise.mean().item()) < 1e-3
        share = (noise.abs() < 16 / 255).double().mean().item()
        assert share == pytest.approx(0.6827, abs=0.01), "the share of a normal distribution within its deviation"
    for one, other in ((first, second), (first[:1], first[1:])):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.03


def test_no_noise_is_the_attack_without_it():
    model, (images, labels) = curved(), scene(2)
    plain = mi_fgsm(steps=3)(model, images, labels, [1, 2])
    none, some = (mi_fgsm(steps=3, input_transforms=[RandomNoise(std)]) for std in (0, 0.1))
    assert torch.equal(none(model, images, labels, [1, 2]), plain)
    assert not torch.equal(some(model, images, labels, [1, 2]), plain)


@pytest.mark.parametrize("std", [-0.1, "nan", float("inf")])
def test_sizes_that_are_refused(std):
    with pytest.raises(ValueError, match="std="):
        RandomNoise(std)
