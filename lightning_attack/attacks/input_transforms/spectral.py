"""The discrete cosine transform of images of any size, by FFT."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dct2(images: Tensor) -> Tensor:
    """Orthonormal two-dimensional DCT-II over the last two dimensions; half types are raised to float32.

        X_k = s_k sum_j x_j cos(pi k (2 j + 1) / (2 n)),   s_0 = sqrt(1 / n), else sqrt(2 / n),   in each of the two

    By FFT, not as a product with the matrix of cosines: autocast and TF32 round matrix products, and let FFTs be.

    Example:
        >>> dct2(torch.tensor([[3.0, 1.0]]))      # (3 + 1) / sqrt(2), (3 - 1) / sqrt(2)
        tensor([[2.8284, 1.4142]])
    """
    return _dct(_dct(images).mT).mT


def idct2(spectrum: Tensor) -> Tensor:
    """The inverse of `dct2`, which is also its transpose."""
    return _idct(_idct(spectrum).mT).mT


def _dct(signal: Tensor) -> Tensor:
    # sum_j x_j exp(-i pi k (2 j + 1) / (2 n)) is the FFT of the signal and as many zeros, turned by exp(-i pi k / 2 n).
    length = signal.shape[-1]
    signal = signal.to(torch.promote_types(signal.dtype, torch.float32))
    turned = torch.fft.rfft(signal, n=2 * length)[..., :length] * _turns(signal).conj()
    return torch.real(turned)


def _idct(spectrum: Tensor) -> Tensor:
    length = spectrum.shape[-1]
    return torch.real(torch.fft.ifft(spectrum * _turns(spectrum), n=2 * length, norm="forward"))[..., :length]


def _turns(signal: Tensor) -> Tensor:
    """s_k exp(i pi k / (2 n)) for each k."""
    length = signal.shape[-1]
    angles = torch.arange(length, dtype=signal.dtype, device=signal.device) * (math.pi / (2 * length))
    sizes = torch.full_like(angles, math.sqrt(2 / length))
    sizes[:1].fill_(math.sqrt(1 / length))  # sizes[0] = ... copies a tensor from the host, and waits for it
    return torch.polar(sizes, angles)
