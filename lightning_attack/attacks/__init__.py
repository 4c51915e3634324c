"""Adversarial attacks on segmentation networks: five kinds of parts, loops, presets named after papers. Torch only.

Named here is also what authors need who write an attack (`Problem`, `Prediction`, `StepLog`), an objective (`Moment`,
`Probe`), an input transform (`View`, `Draws`), a source transform (`SourceGraph`, `Run`, `with_gradient_of`) or a
gradient transform (`Budget`, `GradientFunction`) of their own.

.. include:: README.md
"""

from lightning_attack.attacks.base import Attack, Model, NoAttack, Problem, StepLog, Watch
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import Recorder
from lightning_attack.attacks.given import Given, check_given
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
from lightning_attack.attacks.gradient_transforms.frequency import FrequencyRelevance
from lightning_attack.attacks.gradient_transforms.neighbours import (
    DirectionTuning,
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
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform, View, Warp
from lightning_attack.attacks.input_transforms.chain import RandomChain
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import (
    Admix,
    MixMask,
    ScaleCopies,
    SpectrumSimulation,
    StraightThrough,
)
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.input_transforms.masks import MaskedBlocks
from lightning_attack.attacks.input_transforms.noise import RandomNoise
from lightning_attack.attacks.input_transforms.paths import IntegratedGradients
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.input_transforms.shifts import DiverseSizes, GridShifts, MovedCopies
from lightning_attack.attacks.input_transforms.stretch import BlockStretch
from lightning_attack.attacks.input_transforms.structure import StructureInvariance
from lightning_attack.attacks.input_transforms.warp import ConstrainedWarp
from lightning_attack.attacks.loops.adaea import AdaEA
from lightning_attack.attacks.loops.alma_prox import ALMAProx
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.common_weakness import CommonWeakness
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.global_momentum import GlobalMomentum
from lightning_attack.attacks.loops.gradient import LossGradient
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.minimal_norm import MinimalNorm
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.loops.rotation import SourceRotation
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.loops.soup import Soup
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.norms import L2, Linf, Norm
from lightning_attack.attacks.objectives.base import (
    CosPGD,
    CrossEntropy,
    Moment,
    Objective,
    Probe,
    SegPGD,
    WeightedCrossEntropy,
)
from lightning_attack.attacks.objectives.features import FSPGD, RPPGD
from lightning_attack.attacks.objectives.importance import BFA, FIA, NAA
from lightning_attack.attacks.objectives.losses import JensenShannon, LabelLogit, LogitsRatio, MaskedSpherical, Tsallis
from lightning_attack.attacks.objectives.masked import (
    BalancedCrossEntropy,
    BalancedMaskedCrossEntropy,
    EroSeg,
    MaskedCrossEntropy,
)
from lightning_attack.attacks.objectives.transegpgd import FoolAllPixels, Staged, Switch, TransferablePixels
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.presets import *  # noqa: F403
from lightning_attack.attacks.presets import PRESETS
from lightning_attack.attacks.presets import __all__ as _presets
from lightning_attack.attacks.random import Draws, image_seeds
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
from lightning_attack.attacks.universal import Universal, UniversalPerturbation
from lightning_attack.attacks.wrappers.base import Wrapper
from lightning_attack.attacks.wrappers.function_attack import FunctionAttack
from lightning_attack.attacks.wrappers.peer import Peer
from lightning_attack.attacks.wrappers.per_window import PerWindow
from lightning_attack.attacks.wrappers.start_from import StartFrom
from lightning_attack.attacks.wrappers.until_fooled import UntilFooled
from lightning_attack.attacks.wrappers.worst_case import WorstCase

__all__ = [
    "APGD",
    "BFA",
    "DAG",
    "FIA",
    "FSPGD",
    "L2",
    "NAA",
    "PRESETS",
    "RPPGD",
    "SVRE",
    "ALMAProx",
    "Admix",
    "Attack",
    "AttackError",
    "BalancedCrossEntropy",
    "BalancedMaskedCrossEntropy",
    "BlockShuffle",
    "BlockStretch",
    "CleanFeatureMixup",
    "ConstrainedWarp",
    "CosPGD",
    "CrossEntropy",
    "DirectionTuning",
    "DiversifiedFeatures",
    "DynamicScaling",
    "EnhancedSampling",
    "ExpectedFlatness",
    "EroSeg",
    "FeatureNoise",
    "FixedAttention",
    "FoolAllPixels",
    "FrequencyRelevance",
    "FunctionAttack",
    "Given",
    "GradientTransform",
    "InputDiversity",
    "InputTransform",
    "IterativeAttack",
    "JensenShannon",
    "LabelLogit",
    "LinearBackward",
    "Linf",
    "LocalRegions",
    "LogitsRatio",
    "MaskedCrossEntropy",
    "MaskedSpherical",
    "Momentum",
    "Nesterov",
    "NoAttack",
    "Norm",
    "Objective",
    "PatchWise",
    "Peer",
    "PenalizedGradientNorm",
    "PerWindow",
    "PerturbationDecay",
    "PreGradient",
    "RandomAffine",
    "RandomChain",
    "RandomColour",
    "RandomCrop",
    "RandomFlip",
    "RandomNoise",
    "MixMask",
    "ScaleCopies",
    "StructureInvariance",
    "SegPGD",
    "SkipGradients",
    "SmoothBackward",
    "SoftplusResiduals",
    "SpectrumSimulation",
    "Staged",
    "StartFrom",
    "StraightThrough",
    "Switch",
    "TokenGradients",
    "TransferablePixels",
    "TranslationInvariance",
    "Tsallis",
    "Universal",
    "UniversalPerturbation",
    "UntilFooled",
    "VarianceTuning",
    "WorstCase",
    "AdaEA",
    "AdaptiveTanh",
    "CommonWeakness",
    "DecayIndicator",
    "DiverseSizes",
    "EnhancedEuler",
    "GlobalMomentum",
    "GradientRelevance",
    "GridShifts",
    "IntegratedGradients",
    "MaskedBlocks",
    "MovedCopies",
    "NonSign",
    "RandomWalk",
    "Rescale",
    "ReversePerturbation",
    "RunningMean",
    "Soup",
    "SourceRotation",
    "Staircase",
    "check_given",
    "image_seeds",
    "Budget",
    "Draws",
    "GradientFunction",
    "LossGradient",
    "MinimalNorm",
    "Model",
    "Moment",
    "Prediction",
    "Probe",
    "Problem",
    "Recorder",
    "Run",
    "SourceGraph",
    "SourceTransform",
    "StepLog",
    "StepSchedule",
    "View",
    "Warp",
    "Watch",
    "WeightedCrossEntropy",
    "Wrapper",
    "changeable_nodes",
    "with_gradient_of",
    *_presets,
]
