"""Source transforms of residual connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.source_transforms.activations import ACTIVATION_NAMES, in_ramps
from lightning_attack.attacks.source_transforms.base import SourceTransform, check_names, check_share
from lightning_attack.attacks.source_transforms.connections import PIECEWISE_LINEAR, activations_behind, residuals
from lightning_attack.attacks.source_transforms.graph import SourceGraph
from lightning_attack.attacks.source_transforms.surrogate import with_gradient_of

SAID = "residual connections (skip + branch)"


class SkipGradients(SourceTransform):
    """SGM: the gradient takes the skip connections rather than the residual branches.

    Source: D. Wu, Y. Wang, S.-T. Xia, J. Bailey, X. Ma, "Skip Connections Matter: On the Transferability of Adversarial
    Examples Generated with ResNets", ICLR 2020, arXiv 2002.05990.

        z' = z + f(z):   backward  1 + gamma f'(z)          for each residual connection from `start` on

    Departs from the released code, which approximates this for ResNets by scaling the gradient at every ReLU but those
    of the first block of each stage, and divides the gradient at each block by its standard deviation; here the
    branch's gradient is scaled, once, as in the paper's formula, in first blocks too. So it holds for all networks with
    residual connections, transformers too. How these are found in a graph: `connections.residuals`.

    The paper's own arguments: gamma 0.2 for ResNet-18 and ResNet-34 and for ResNet-50 and larger, 0.5 for DenseNets;
    eps 16/255, steps of 2/255, 10 steps.

    Args:
        gamma: what is left of the branches' gradient, in [0, 1]; 1 changes nothing.
        start: depth from which residual connections are changed, in [0, 1], see `SourceGraph`.
        required: whether a source without residual connections, or without a graph, is an error; False attacks it as
            it is.
        nodes: names of the sums to change in place of those from `start` on; `auto` names none.
        gamma_activated: gamma where an activation follows the sum, as in ResNets; null: the same.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no residual connections, or none of such a name.
    """

    nodes: Sequence[str] = (AUTO,)
    gamma_activated: float | None = None

    def __init__(
        self,
        gamma: float = 0.2,
        start: float = 0.0,
        required: bool = True,
        nodes: Sequence[str] = (AUTO,),
        gamma_activated: float | None = None,
    ) -> None:
        self.gamma, self.start = check_share("gamma", gamma), check_share("start", start)
        self.required = required
        if check_names(nodes) != [AUTO]:  # auto is not noted: settings stay those of earlier runs
            self.nodes = list(nodes)
        if gamma_activated is not None:  # likewise
            self.gamma_activated = check_share("gamma_activated", gamma_activated)

    @property
    def idle(self) -> bool:
        return self.gamma == 1 and self.gamma_activated in (None, 1)

    def rewrite(self, graph: SourceGraph) -> None:
        found = {one.addition: one for one in residuals(graph)}
        for addition in graph.find(self, SAID, found, self.start, self.nodes):
            own = self.gamma_activated if activations_behind(found[addition].total) else None
            gamma = self.gamma if own is None else own
            graph.before(addition, found[addition].branch, partial(_scaled, gamma=gamma))


def _scaled(branch: Tensor, gamma: float) -> Tensor:
    return with_gradient_of(branch, gamma * branch)


class SoftplusResiduals(SourceTransform):
    """IAA: a smooth source, with weaker residual branches towards its end.

    Source: Y. Zhu, J. Sun, Z. Li, "Rethinking Adversarial Transferability from a Data Distribution Perspective", ICLR
    2022.

        ReLU -> softplus:  log(1 + exp(beta z)) / beta,           z' = z + share * f(z)        forward and backward

    The paper searches the shares of a network's stages; of a ResNet-50 they fell from .98 to .19. Here the residual
    connections that are changed are divided, in order, into as many equal groups as there are shares. A network without
    residual connections only has its ReLUs replaced. Other activations of straight pieces become sums of softplus,
    as in `SmoothBackward`.

    The paper's own arguments (those of a public port for ResNet-50): beta 20, shares .98, .87, .73, .19.

    Args:
        beta: sharpness of softplus, above 0; null leaves activations as they are.
        shares: of the residual branches, each in [0, 1]; [1] leaves them as they are.
        start: depth from which activations and residual connections are changed, in [0, 1], see `SourceGraph`.
        nodes: names of the activations and of the sums of residual connections to change in place of those from `start`
            on; `auto` names none.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has nothing of what is to be changed.
    """

    start: float = 0.0
    nodes: Sequence[str] = (AUTO,)

    def __init__(
        self,
        beta: float | None = 20.0,
        shares: Sequence[float] = (0.98, 0.87, 0.73, 0.19),
        start: float = 0.0,
        nodes: Sequence[str] = (AUTO,),
    ) -> None:
        if beta is not None and not 0 < beta < float("inf"):  # NaN too
            raise ValueError(f"beta={beta}: must be above 0, or null to leave activations as they are")
        if not shares:
            raise ValueError("shares=[]: give one or more, such as [1] to leave residual branches as they are")
        self.beta, self.shares = beta, [check_share("shares", share) for share in shares]
        if check_share("start", start):  # 0 and auto are not noted: settings stay those of earlier runs
            self.start = start
        if check_names(nodes) != [AUTO]:
            self.nodes = list(nodes)

    @property
    def idle(self) -> bool:
        return self.beta is None and all(share == 1 for share in self.shares)

    def rewrite(self, graph: SourceGraph) -> None:
        known = residuals(graph) if any(share != 1 for share in self.shares) else []
        found = {one.addition: one for one in known}
        activations = [] if self.beta is None else graph.all(*PIECEWISE_LINEAR)
        said = f"{ACTIVATION_NAMES}, and {SAID}"
        wanted = graph.find(self, said, [*found, *activations], self.start, self.nodes)
        weakened = [found[node] for node in wanted if node in found]
        totals = list(dict.fromkeys(one.total for one in weakened))
        for addition, branch, total in weakened:
            share = self.shares[totals.index(total) * len(self.shares) // len(totals)]
            graph.before(addition, branch, _times(share))
        for node in wanted:
            if node not in found:
                soft, inputs = in_ramps(node, self._softplus)
                graph.follow(node, _in_place_of(soft), *inputs)

    def _softplus(self, z: Tensor) -> Tensor:
        assert self.beta is not None
        # Above torch's own threshold of 20 it still differs from z by 1e-10, which float64 can tell.
        return F.softplus(z, self.beta, threshold=40)


def _times(share: float) -> Callable[[Tensor], Tensor]:
    return lambda branch: share * branch


def _in_place_of(soft: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A change that does without the true value."""
    return lambda value, *given: soft(*given)
