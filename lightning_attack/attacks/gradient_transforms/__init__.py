"""Gradient transforms: momentum, smoothing and sampling, between the gradient of the model and the step."""

from lightning_attack.attacks.gradient_transforms.base import (
    Budget,
    GradientFunction,
    GradientTransform,
    Momentum,
    Nesterov,
    PreGradient,
    TranslationInvariance,
)
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    ExpectedFlatness,
    PenalizedGradientNorm,
    VarianceTuning,
)

__all__ = [
    "Budget",
    "EnhancedSampling",
    "ExpectedFlatness",
    "GradientFunction",
    "GradientTransform",
    "Momentum",
    "Nesterov",
    "PenalizedGradientNorm",
    "PreGradient",
    "TranslationInvariance",
    "VarianceTuning",
]
