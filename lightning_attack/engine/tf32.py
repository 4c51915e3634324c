"""TF32, in which NVIDIA GPUs may compute what is called float32, with 10 bits of mantissa in place of 23."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS: Any = torch.backends
_CONVOLUTIONS, _PRODUCTS = _BACKENDS.cudnn.conv, _BACKENDS.cuda.matmul
"""What torch asks, each with its `fp32_precision`: `ieee`, `tf32`, or `none` where a wider setting decides."""


def float32_precision() -> dict[str, str]:
    """What CUDA computes float32 in, convolutions and matrix products: `ieee` or `tf32`.

    Example:
        >>> with full_float32():
        ...     float32_precision()
        {'convolutions': 'ieee', 'matrix_products': 'ieee'}
    """
    whole = _BACKENDS.fp32_precision
    found = {
        "convolutions": (_CONVOLUTIONS.fp32_precision, _BACKENDS.cudnn.fp32_precision, whole),
        "matrix_products": (_PRODUCTS.fp32_precision, whole),
    }
    return {name: next((one for one in settings if one != "none"), "ieee") for name, settings in found.items()}


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside the `with` block, float32 is float32 on CUDA too."""
    before = [one.fp32_precision for one in (_CONVOLUTIONS, _PRODUCTS)]
    try:
        # Torch refuses to read its older flags (`allow_tf32`) after a mix of both; only the newer ones are touched.
        _CONVOLUTIONS.fp32_precision = _PRODUCTS.fp32_precision = "ieee"
        yield
    finally:
        _CONVOLUTIONS.fp32_precision, _PRODUCTS.fp32_precision = before
