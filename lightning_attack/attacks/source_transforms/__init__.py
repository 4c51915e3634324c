"""Source transforms: how the source runs while it is attacked. Scores never see them."""

from lightning_attack.attacks.source_transforms.activations import LinearBackward, SmoothBackward
from lightning_attack.attacks.source_transforms.attention import FixedAttention
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.features import (
    CleanFeatureMixup,
    DiversifiedFeatures,
    FeatureNoise,
    PerturbationDecay,
)
from lightning_attack.attacks.source_transforms.graph import SourceGraph
from lightning_attack.attacks.source_transforms.nodes import changeable_nodes
from lightning_attack.attacks.source_transforms.residuals import SkipGradients, SoftplusResiduals
from lightning_attack.attacks.source_transforms.run import Run
from lightning_attack.attacks.source_transforms.surrogate import with_gradient_of
from lightning_attack.attacks.source_transforms.tokens import TokenGradients

__all__ = [
    "CleanFeatureMixup",
    "DiversifiedFeatures",
    "FeatureNoise",
    "FixedAttention",
    "LinearBackward",
    "PerturbationDecay",
    "Run",
    "SkipGradients",
    "SmoothBackward",
    "SoftplusResiduals",
    "SourceGraph",
    "SourceTransform",
    "TokenGradients",
    "changeable_nodes",
    "with_gradient_of",
]
