"""The cosine transform against the matrix of cosines."""

import math

import pytest
import torch

from lightning_attack.attacks.input_transforms.spectral import dct2, idct2

SIZES = [(1, 1), (1, 5), (8, 17), (97, 61)]


def cosines(length, dtype=torch.float64):
    """Rows are the orthonormal DCT-II's waves, from the definition."""
    rows = [[math.cos(math.pi * k * (2 * j + 1) / (2 * length)) for j in range(length)] for k in range(length)]
    sizes = [math.sqrt((1 if k == 0 else 2) / length) for k in range(length)]
    return torch.tensor(rows, dtype=dtype) * torch.tensor(sizes, dtype=dtype)[:, None]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_definition_and_inverse(height, width):
    images = torch.rand(2, 3, height, width, dtype=torch.float64)
    expected = cosines(height) @ images @ cosines(width).T
    assert torch.allclose(dct2(images), expected, rtol=0, atol=1e-12)
    assert torch.allclose(idct2(images), cosines(height).T @ images @ cosines(width), rtol=0, atol=1e-12)
    assert torch.allclose(idct2(dct2(images)), images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lower_precision(dtype):
    images = torch.rand(1, 3, 33, 50, dtype=torch.float64).to(dtype)
    spectrum = dct2(images)
    assert spectrum.dtype == torch.float32
    assert torch.allclose(spectrum, dct2(images.double()).float(), rtol=0, atol=1e-4)
    assert torch.allclose(idct2(spectrum), images.float(), rtol=0, atol=1e-6)


def test_autocast_does_not_round():
    images = torch.rand(1, 3, 33, 50)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = idct2(dct2(images))
    assert torch.allclose(rounded, images, rtol=0, atol=1e-6)


def test_gradient():
    images = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dct2, images)
    assert torch.autograd.gradcheck(idct2, images)
