"""Source transforms of activations and maximum pooling: other slopes on the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.source_transforms.base import SourceTransform, check_names, check_share
from lightning_attack.attacks.source_transforms.branches import keep_length
from lightning_attack.attacks.source_transforms.connections import PIECEWISE_LINEAR, activations_behind, residuals
from lightning_attack.attacks.source_transforms.graph import SourceGraph, operator
from lightning_attack.attacks.source_transforms.surrogate import mixed, with_gradient_of
from lightning_attack.engine.graphs import arguments

aten = torch.ops.aten
ACTIVATION_NAMES = "ReLU, ReLU6, hardtanh, leaky ReLU and PReLU"


class SmoothBackward(SourceTransform):
    """BPA: the gradient does not vanish where a ReLU is shut, nor beside the maximum of a pooling window.

    Source: X. Wang, K. Tong, K. He, "Rethinking the Backward Propagation for Adversarial Transferability", NeurIPS
    2023, arXiv 2306.12685.

        ReLU:  forward max(0, z),   backward  s(z) (1 + z (1 - s(z)))      s = sigmoid; this is the slope of SiLU
        maximum of a window:        backward  softmax(temperature * z) over the window

    Other activations of straight pieces are sums of ReLUs, and so are their slopes: ReLU6 = r(z) - r(z - 6), and
    hardtanh likewise; PReLU = a z + (1 - a) r(z). With `strength` below 1 the slopes are mixed with the true ones,
    `strength` of them smooth. Activations that are smooth already (SiLU, GELU, ...) have nothing to change.

    Departs from the released code in two points: that leaves the true slope to the ReLU behind the sum of each residual
    block, and changes only those inside the branches, and of the pooling only that in the stem; here all are changed.
    With `behind_sums=False`, as in the preset `bpa`, the former keep their true slope here too.

    The paper's own arguments: temperature 10; of a ResNet-50 the ReLUs after the first block of the third stage, about
    the second half of its convolutions, and the pooling in its stem.

    Args:
        strength: share of the smooth slope, in [0, 1]; 0 changes nothing.
        start: depth from which activations are changed, in [0, 1], see `SourceGraph`.
        temperature: of the softmax in pooling windows, above 0; null leaves pooling as it is. Pooling is changed
            wherever it is.
        nodes: names of the activations to change in place of those from `start` on; `auto` names none.
        required: whether a source that has neither, or no graph, is an error; False attacks it as it is.
        behind_sums: whether activations behind the sums of residual connections are changed too, as in ResNets. All
            that comes through the blocks before passes them.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has neither such activations nor, unless temperature is null,
            maximum pooling.

    Example:
        >>> from lightning_attack.attacks.source_transforms.source import TransformedSource
        >>> from lightning_attack.attacks.random import Draws
        >>> x = torch.zeros(1, 3, 1, 1, requires_grad=True)
        >>> source = TransformedSource(torch.nn.ReLU(), [SmoothBackward(start=0.0)])
        >>> logits = source(x, Draws([0]), step=0)                     # s(0) = 1/2
        >>> torch.autograd.grad(logits.sum(), x)[0].flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    behind_sums = True

    def __init__(
        self,
        strength: float = 1.0,
        start: float = 0.4,
        temperature: float | None = 10.0,
        nodes: Sequence[str] = (AUTO,),
        required: bool = True,
        behind_sums: bool = True,
    ) -> None:
        self.strength, self.start = check_share("strength", strength), check_share("start", start)
        if temperature is not None and not 0 < temperature < float("inf"):  # NaN too
            raise ValueError(f"temperature={temperature}: must be above 0, or null to leave pooling as it is")
        self.temperature, self.nodes = temperature, check_names(nodes)
        if not required:  # True is not noted: settings stay those of earlier runs
            self.required = False
        if not behind_sums:  # likewise
            self.behind_sums = False

    @property
    def idle(self) -> bool:
        return self.strength == 0

    def rewrite(self, graph: SourceGraph) -> None:
        pools = [] if self.temperature is None else graph.all(aten.max_pool2d_with_indices)
        activations, what = _activations(graph, self.behind_sums)
        if activations or not pools or self.nodes != [AUTO]:
            activations = graph.find(self, what, activations, self.start, self.nodes)
        for node in activations:
            surrogate, inputs = in_ramps(node, F.silu)
            change_slope(graph, node, surrogate, inputs, self.strength)
        for pool in pools:
            change = partial(self._pool, window=Window(*arguments(pool)[1:]))
            for value in [user for user in pool.users if user.args[1] == 0]:
                graph.follow(value, change, arguments(pool)[0])

    def _pool(self, value: Tensor, z: Tensor, window: Window) -> Tensor:
        assert self.temperature is not None
        parts, padded = window.parts(z, value.shape)
        weights = (self.temperature * parts.detach()).softmax(2)
        # Padding weighs nothing; its values are those of the least number, which times nothing is nothing.
        smooth = (weights * torch.where(padded, 0, parts)).sum(2).view_as(value)
        return with_gradient_of(value, mixed(value, smooth, self.strength))


class LinearBackward(SourceTransform):
    """LinBP: backward as if there were no activations from some depth on.

    Source: Y. Guo, Q. Li, H. Chen, "Backpropagating Linearly Improves Transferability of Adversarial Examples", NeurIPS
    2020, arXiv 2012.03528.

        forward max(0, z),   backward 1                    for each ReLU from `start` on
        z' = z + f(z),       backward 1 + |g| / |g'| f'    g, g' = what f hands back with the true slopes and with 1

    With `strength` below 1 the slope is strength + (1 - strength) * true slope. ReLU6, hardtanh, leaky ReLU and PReLU
    have the slope 1 as well. The second line (`rescale`) keeps the balance of skip connections and residual branches,
    image by image; a branch with changed slopes is computed twice for it.

    Departs from the released code in one point: that leaves the true slope to the ReLU behind the sum of each residual
    block, and here all have the slope 1. With `behind_sums=False`, as in the preset `linbp`, these keep their true
    slope here too.

    The paper's own arguments: eps 16/255 and less, steps of 1/255, 300 steps; of a ResNet-50 all from the second block
    of the third stage on.

    Args:
        strength: share of the slope 1, in [0, 1]; 0 changes nothing.
        start: depth from which activations are changed, in [0, 1], see `SourceGraph`.
        nodes: names of the activations to change in place of those from `start` on; `auto` names none.
        rescale: whether the gradient through each residual branch keeps its length.
        behind_sums: whether activations behind the sums of residual connections are changed too, see `SmoothBackward`.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such activations.
    """

    behind_sums = True

    def __init__(
        self,
        strength: float = 1.0,
        start: float = 0.4,
        nodes: Sequence[str] = (AUTO,),
        rescale: bool = True,
        behind_sums: bool = True,
    ) -> None:
        self.strength, self.start = check_share("strength", strength), check_share("start", start)
        self.nodes, self.rescale = check_names(nodes), rescale
        if not behind_sums:  # True is not noted: settings stay those of earlier runs
            self.behind_sums = False

    @property
    def idle(self) -> bool:
        return self.strength == 0

    def rewrite(self, graph: SourceGraph) -> None:
        activations, what = _activations(graph, self.behind_sums)
        found = graph.find(self, what, activations, self.start, self.nodes)
        changes = {change_slope(graph, node, lambda z: z, arguments(node)[:1], self.strength) for node in found}
        if self.rescale:
            keep_length(graph, changes)


def _activations(graph: SourceGraph, behind_sums: bool) -> tuple[list[fx.Node], str]:
    """The activations of straight pieces that may be changed, and what they are called."""
    found = graph.all(*PIECEWISE_LINEAR)
    if behind_sums:
        return found, ACTIVATION_NAMES
    behind = {one for residual in residuals(graph) for one in activations_behind(residual.total)}
    others = [node for node in found if node not in behind]
    return others, f"{ACTIVATION_NAMES}, but not behind the sums of residual connections (behind_sums: true does)"


Ramp = Callable[[Tensor], Tensor]
"""Stands for max(0, z)."""


def in_ramps(node: fx.Node, ramp: Ramp) -> tuple[Callable[..., Tensor], list[fx.Node]]:
    """An activation of straight pieces as the sum of ramps that it is, and the nodes that it takes.

    Args:
        node: calls one of `PIECEWISE_LINEAR`.
        ramp: takes the place of max(0, z).
    """
    kind, (inputs, *settings) = operator(node), arguments(node)
    if kind == aten.hardtanh:
        low, high = settings[0] if settings else -1.0, settings[1] if len(settings) > 1 else 1.0
        # Without the subtraction of 0, which takes as long as a ramp.
        return (lambda z: low + ramp(z - low if low else z) - ramp(z - high)), [inputs]
    if kind == aten.leaky_relu:
        slope = settings[0] if settings else 0.01
        return (lambda z: slope * z + (1 - slope) * ramp(z)), [inputs]
    if kind == aten._prelu_kernel:
        return (lambda z, slope: slope * z + (1 - slope) * ramp(z)), [inputs, settings[0]]
    return ramp, [inputs]


def change_slope(
    graph: SourceGraph, node: fx.Node, surrogate: Callable[..., Tensor], inputs: Sequence[fx.Node], strength: float
) -> fx.Node:
    """Let the gradient of a node be, `strength` of it, that of another function of some nodes before it."""

    def change(value: Tensor, *given: Tensor) -> Tensor:
        return with_gradient_of(value, mixed(value, surrogate(*given), strength))

    return graph.follow(node, change, *inputs)


class Window:
    """The windows of `max_pool2d`, from its arguments in ATen."""

    def __init__(
        self,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        ceil_mode: bool = False,
    ) -> None:
        self.kernel, self.stride = _pair(kernel), _pair(stride or kernel)
        self.padding, self.dilation = _pair(padding), _pair(dilation)

    def parts(self, z: Tensor, pooled: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The values in each window, (B, C, kernel, places), and which of them are padding.

        Args:
            z: (B, C, H, W).
            pooled: shape of the result, (B, C, h, w).
        """
        lowest = torch.finfo(z.dtype).min / 4
        ends = []
        for side, kernel, stride, padding, dilation, size in zip(
            pooled[2:], self.kernel, self.stride, self.padding, self.dilation, z.shape[2:], strict=True
        ):
            # Negative where the last values are in no window, positive where windows go beyond (ceil_mode).
            ends.append((side - 1) * stride + dilation * (kernel - 1) + 1 - size - padding)
        below, right = ends
        z = F.pad(z, (self.padding[1], right, self.padding[0], below), value=lowest)
        parts = F.unfold(z, self.kernel, dilation=self.dilation, stride=self.stride)
        parts = parts.view(len(z), z.shape[1], self.kernel[0] * self.kernel[1], -1)
        return parts, parts.detach() <= lowest


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, *rest = values
    return first, rest[0] if rest else first
