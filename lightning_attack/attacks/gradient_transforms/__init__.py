"""Gradient transforms: what becomes of the gradient between the source and the step (momentum, smoothing, sampling)."""

from lightning_attack.attacks.gradient_transforms.base import (
    Budget,
    GradientTransform,
    Momentum,
    Nesterov,
    PreGradient,
    TranslationInvariance,
)
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    PenalizedGradientNorm,
    VarianceTuning,
)

__all__ = [
    "Budget",
    "EnhancedSampling",
    "GradientTransform",
    "Momentum",
    "Nesterov",
    "PenalizedGradientNorm",
    "PreGradient",
    "TranslationInvariance",
    "VarianceTuning",
]
