"""What the attack's passes can compute in here: tests of bfloat16 are skipped, and benchmarks do without it, where it is missing."""  # noqa: E501

import pytest
import torch

from lightning_attack.engine.support import EngineError, Precision, check_precision


def _without_bfloat16() -> str:
    try:
        check_precision("bf16", torch.device("cpu"))
    except EngineError as problem:
        return str(problem)
    return ""


WITHOUT_BFLOAT16 = _without_bfloat16()
"""Why this processor cannot; empty if it can."""
PRECISIONS: tuple[Precision, ...] = ("float32",) if WITHOUT_BFLOAT16 else ("float32", "bf16")
needs_bfloat16 = pytest.mark.skipif(bool(WITHOUT_BFLOAT16), reason=WITHOUT_BFLOAT16)
