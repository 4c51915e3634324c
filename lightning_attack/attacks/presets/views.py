"""Attacks that show the source changed copies of the image, and attack what it sees there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Nesterov, RunningMean
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform
from lightning_attack.attacks.input_transforms.chain import RandomChain
from lightning_attack.attacks.input_transforms.copies import (
    Admix,
    MixMask,
    ScaleCopies,
    SpectrumSimulation,
    StraightThrough,
)
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomFlip
from lightning_attack.attacks.input_transforms.masks import MaskedBlocks
from lightning_attack.attacks.input_transforms.noise import RandomNoise
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.input_transforms.shifts import DiverseSizes, GridShifts
from lightning_attack.attacks.input_transforms.stretch import BlockStretch
from lightning_attack.attacks.input_transforms.structure import StructureInvariance
from lightning_attack.attacks.input_transforms.warp import ConstrainedWarp
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, make_ball, momentum, usual_noise
from lightning_attack.common.pixels import Pixels

__all__ = [
    "admix",
    "anda",
    "block_shuffle",
    "block_stretch",
    "bsr",
    "decowa",
    "dem",
    "di_fgsm",
    "dynamic_scaling",
    "local_regions",
    "mask_block",
    "ops",
    "si_ni_fgsm",
    "sia",
    "ssa",
    "us_mm",
]


def si_ni_fgsm(*, decay: float = 1.0, copies: int = 5, **settings: Unpack[Settings]) -> IterativeAttack:
    """SI-NI-FGSM: Nesterov momentum over darker copies of the image, see `ScaleCopies` and `Nesterov`.

    Source: J. Lin et al., ICLR 2020, arXiv 1908.06281 (there: eps 16/255, step eps/10, 10 steps, decay 1, 5 copies).
    """
    inputs = [ScaleCopies(copies)]
    return build("si_ni_fgsm", CrossEntropy(), settings, inputs=inputs, gradients=[Nesterov(decay)], looks_ahead=True)


def di_fgsm(
    *, decay: float = 0.0, scale: float = 0.9, prob: float = 0.5, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """DI-FGSM: input diversity, see `InputDiversity`; without momentum, as in the paper's DI2-FGSM (`decay` 0).

    Source: C. Xie et al., CVPR 2019, arXiv 1803.06978 (there: eps 15/255, step 1/255, 19 steps, prob 0.5; sizes 299 to
    330, which is a scale of about 0.9).
    """
    diversity = InputDiversity(scale, prob, undo)
    return build("di_fgsm", CrossEntropy(), settings, inputs=[diversity], gradients=momentum(decay))


def admix(
    *,
    decay: float = 1.0,
    copies: int = 3,
    strength: float = 0.2,
    scales: int = 5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """Admix: momentum over copies with a little of other images of the batch, each at several brightnesses.

    See `Admix` and `ScaleCopies`. Source: X. Wang et al., ICCV 2021, arXiv 2102.00436 (there: eps 16/255, step eps/10,
    10 steps, 3 copies times 5 scales, strength 0.2). The batch must hold two images or more.
    """
    inputs = [Admix(copies, strength), ScaleCopies(scales)]
    return build("admix", CrossEntropy(), settings, inputs=inputs, gradients=momentum(decay))


def ssa(*, decay: float = 1.0, copies: int = 20, rho: float = 0.5, **settings: Unpack[Settings]) -> IterativeAttack:
    """SSA: momentum over copies whose spectrum was shaken, see `SpectrumSimulation`; its noise has the size of eps.

    Source: Y. Long et al., ECCV 2022, arXiv 2207.05382 (there: eps 16/255, step eps/10, 10 steps, 20 copies, rho 0.5).
    As in the released code the gradient at a copy counts as that at the image (`StraightThrough`).
    """
    shaken = StraightThrough(SpectrumSimulation(copies, rho, usual_noise(settings)))
    return build("ssa", CrossEntropy(), settings, inputs=[shaken], gradients=momentum(decay))


def dynamic_scaling(
    *, decay: float = 0.0, low: float = 0.5, high: float = 1.5, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Dynamic scaling: PGD on the image at changing sizes, see `DynamicScaling`.

    Source: J. Gu et al., "Adversarial Examples on Segmentation Models Can be Easy to Transfer", 2021, arXiv 2111.11368,
    of which only the abstract was available: the range of sizes is ours. Random start; without momentum (`decay` 0).
    """
    scaling = DynamicScaling(low, high, undo)
    defaults: Settings = {"random_start": True}
    return build("dynamic_scaling", CrossEntropy(), settings, defaults, [scaling], momentum(decay))


def block_shuffle(
    *, decay: float = 1.0, blocks: int = 3, copies: int = 1, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Block shuffle: momentum over copies cut into blocks that change places, see `BlockShuffle`.

    Source: K. Wang et al., "Boosting Adversarial Transferability by Block Shuffle and Rotation", CVPR 2024,
    arXiv 2308.10299; without its rotation. There 20 copies; here 1, since they are drawn anew at every step.
    """
    shuffle = BlockShuffle(blocks, copies, undo)
    return build("block_shuffle", CrossEntropy(), settings, inputs=[shuffle], gradients=momentum(decay))


def block_stretch(
    *, decay: float = 1.0, blocks: int = 3, strength: float = 0.6, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Block stretch: momentum over copies in which some blocks grow at the cost of others, see `BlockStretch`.

    Source: after the abstract of "Enhancing Adversarial Transferability through Block Stretch and Shrink", 2025, arXiv
    2511.17688, whose details are not known to us.
    """
    stretch = BlockStretch(blocks, strength, undo)
    return build("block_stretch", CrossEntropy(), settings, inputs=[stretch], gradients=momentum(decay))


def bsr(
    *,
    decay: float = 1.0,
    blocks: int = 3,
    copies: int = 1,
    degrees: float = 24.0,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """BSR: momentum over copies cut into blocks that are turned and change places, see `BlockShuffle`.

    Source: K. Wang et al., CVPR 2024, arXiv 2308.10299 (there: eps 16/255, step eps/10, 10 steps; 3 blocks, 24 degrees
    and 20 copies in a common port). Here 1 copy, drawn anew at every step.
    """
    shuffle = BlockShuffle(blocks, copies, undo, degrees)
    return build("bsr", CrossEntropy(), settings, inputs=[shuffle], gradients=momentum(decay))


def decowa(
    *,
    decay: float = 1.0,
    points: int = 3,
    strength: float = 2.0,
    rho: float = 0.01,
    copies: int = 1,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """DeCowA: momentum over copies that are bent, less where that would help the attack, see `ConstrainedWarp`.

    Source: Q. Lin et al., AAAI 2024, arXiv 2402.03951 (in a public port: eps 16/255, step eps/10, 10 steps, 20 copies).
    Here 1 copy, drawn anew at every step; each takes two passes.
    """
    warp = ConstrainedWarp(points, strength, rho, copies, undo)
    return build("decowa", CrossEntropy(), settings, inputs=[warp], gradients=momentum(decay))


def sia(
    *,
    decay: float = 1.0,
    blocks: int = 3,
    copies: int = 1,
    noise: Pixels | None = None,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """SIA: momentum over copies whose blocks are each changed in a way of its own, see `StructureInvariance`.

    Source: X. Wang et al., ICCV 2023, arXiv 2309.14700 (there: eps 16/255, step eps/10, 10 steps, 3 blocks, 20 copies).
    Here 1 copy, drawn anew at every step; `noise` None has the size of eps, as in a common port.
    """
    structure = StructureInvariance(blocks, copies, usual_noise(settings) if noise is None else noise, undo)
    return build("sia", CrossEntropy(), settings, inputs=[structure], gradients=momentum(decay))


def us_mm(
    *,
    decay: float = 1.0,
    scales: int = 5,
    masks: int = 3,
    low: float = 0.1,
    high: float = 0.75,
    mix: float = 0.5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """US-MM: momentum over darker copies that are masked by other images, see `MixMask`.

    Source: "Boost Adversarial Transferability by Uniform Scale and Mix Mask Method", 2023, arXiv 2311.12051 (there: eps
    16/255, step eps/10, 10 steps, 5 scales, 3 masks). Without partners the batch must hold two images or more.
    """
    masked = MixMask(scales, masks, low, high, mix)
    return build("us_mm", CrossEntropy(), settings, inputs=[masked], gradients=momentum(decay))


def local_regions(
    *, decay: float = 1.0, grid: int = 4, keep: float = 0.5, copies: int = 1, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Local regions: momentum over copies of which only some cells are kept, see `LocalRegions`.

    Source: ours, inspired by the abstract of SegTrans, 2025, arXiv 2510.08922; it is not SegTrans, whose details are
    not known to us.
    """
    regions = LocalRegions(grid, keep, copies)
    return build("local_regions", CrossEntropy(), settings, inputs=[regions], gradients=momentum(decay))


def dem(
    *,
    decay: float = 1.0,
    rates: Sequence[float] = (1.14, 1.27, 1.40, 1.53, 1.66),
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """DEM: momentum over views with larger and larger margins, in steps that are as long as the radius.

    See `DiverseSizes`. Source: J. Zou et al., ECCV 2020, arXiv 2112.06011 (there: eps 16/255, 10 steps of eps, which
    the paper calls region fitting; in a common port decay 1). In L2 steps are as long as usual. Departs from the paper,
    which averages the logits of the views before the loss: here their losses are averaged.
    """
    sizes = DiverseSizes(rates, undo)
    step = make_ball(settings).eps
    return build("dem", CrossEntropy(), settings, inputs=[sizes], gradients=momentum(decay), linf_step=step)


def anda(*, grid: int = 5, reach: float = 0.3, undo: bool = True, **settings: Unpack[Settings]) -> IterativeAttack:
    """ANDA: the mean of all gradients so far, over shifts on a grid, see `GridShifts` and `RunningMean`.

    Source: Z. Fang et al., CVPR 2024, arXiv 2209.11964 (there: eps 16/255, step eps/10, 10 steps, 25 shifts of up to
    0.3 half sides). One adversarial example, at the mean of the learnt distribution.
    """
    return build("anda", CrossEntropy(), settings, inputs=[GridShifts(grid, reach, undo)], gradients=[RunningMean()])


def mask_block(*, decay: float = 1.0, grid: int = 4, **settings: Unpack[Settings]) -> IterativeAttack:
    """MaskBlock: momentum over copies in each of which one cell of a grid is black, see `MaskedBlocks`.

    Source: M. Fan et al., 2022, arXiv 2208.06538 (in a common port: eps 16/255, step 2/255, 10 steps, 16 cells).
    """
    return build("mask_block", CrossEntropy(), settings, inputs=[MaskedBlocks(grid)], gradients=momentum(decay))


def ops(
    *,
    decay: float = 1.0,
    least: int = 2,
    most: int = 4,
    copies: int = 1,
    noise: Pixels | None = None,
    degrees: float = 45.0,
    scale: float = 0.5,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """OPS: momentum over chains of two to four random operators at random neighbours of the image.

    See `RandomChain` and `RandomNoise`.

        x_i = x + noise N(0, 1),   view of x_i through `least` to `most` of: turned by up to `degrees` (`RandomAffine`),
        mirrored (`RandomFlip`), rolled in parts (`BlockShuffle` of 2), divided by 1, 2, 4 or 8 (`ScaleCopies`),
        smaller on black (`InputDiversity` with `scale`)

    Source: after Y. Guo et al., CVPR 2025 (in a common port: eps 16/255, step eps/10, 10 steps, each with the mean over
    20 chains at 10 neighbours, uniform within 0.5 to 3 eps, so 201 passes a step; 31 operators, among them whole rolls
    and turns of up to 180 degrees). Here 1 chain at 1 neighbour (`copies` chains), drawn anew at every step; an
    operator is at most once in a chain, and the geometry is undone on the logits. `noise` None is eps, which spreads
    as widely as the mean of the port's radii.
    """
    operators: list[InputTransform] = [
        RandomAffine(degrees, 0.0, 0.0, undo),
        RandomFlip(1.0, undo),
        BlockShuffle(2, 1, undo),
        ScaleCopies(4),
        InputDiversity(scale, 1.0, undo),
    ]
    near = RandomNoise(usual_noise(settings) if noise is None else noise)
    inputs = [near, RandomChain(operators, least, most, copies)]
    return build("ops", CrossEntropy(), settings, inputs=inputs, gradients=momentum(decay))
