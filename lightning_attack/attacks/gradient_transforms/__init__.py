"""Gradient transforms: momentum, smoothing and sampling, between the gradient of the model and the step."""

from lightning_attack.attacks.gradient_transforms.base import (
    Budget,
    GradientFunction,
    GradientTransform,
    Momentum,
    Nesterov,
    PreGradient,
    RunningMean,
    TranslationInvariance,
)
from lightning_attack.attacks.gradient_transforms.neighbours import (
    EnhancedEuler,
    GradientRelevance,
    RandomWalk,
    ReversePerturbation,
)
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    ExpectedFlatness,
    PenalizedGradientNorm,
    VarianceTuning,
)
from lightning_attack.attacks.gradient_transforms.steps import (
    AdaptiveTanh,
    DecayIndicator,
    NonSign,
    Rescale,
    Staircase,
)

__all__ = [
    "AdaptiveTanh",
    "Budget",
    "DecayIndicator",
    "EnhancedEuler",
    "EnhancedSampling",
    "ExpectedFlatness",
    "GradientFunction",
    "GradientRelevance",
    "GradientTransform",
    "Momentum",
    "Nesterov",
    "NonSign",
    "PenalizedGradientNorm",
    "PreGradient",
    "RandomWalk",
    "Rescale",
    "ReversePerturbation",
    "RunningMean",
    "Staircase",
    "TranslationInvariance",
    "VarianceTuning",
]
