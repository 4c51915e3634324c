"""Memory: recognise errors of running out of it, and keep freed memory for the next step."""

from __future__ import annotations

import ctypes

import torch

_SIGNS = (
    "can't allocate memory",  # the CPU's allocator
    "out of memory",  # CUDA and MPS, by whatever class
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuFFT, cuSOLVER
    "unable to find an engine to execute",  # cuDNN, of which each algorithm asked for more memory than there was
)
"""What messages of errors of other classes hold when memory ran out."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; on CPUs, and in CUDA's libraries, it is a `RuntimeError` for torch.

    Example:
        >>> out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), out_of_memory(RuntimeError("nan"))
        (True, False)
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in _SIGNS)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next, for the rest of the process.

    Otherwise each tensor above 32 MB is given back to the system and asked for again, page by page, in every step: a
    tenth to a fifth of the time of networks on large images. The process stays as large as it has ever been.

    Returns:
        Whether it could be done: in the GNU C library it can.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(change(_TRIM_THRESHOLD, -1)) and bool(change(_MMAP_MAX, 0))
