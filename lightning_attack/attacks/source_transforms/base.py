"""`SourceTransform`: a change of how the source runs while it is attacked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.source_transforms.graph import SourceGraph


class SourceTransform(ABC):
    """Changes the graph of the source's forward pass, for the passes in which an attack takes gradients.

    A transform may change what a node hands on (`SourceGraph.follow`), its values or its gradient alone
    (`with_gradient_of`). Nobody else sees the change: clean predictions, scores and the network itself stay as they
    are. Objects hold settings only; randomness comes from `Run`.
    """

    required: bool = True
    """Whether a source that it cannot change is an error. If not, such a source is attacked without it, with a warning;
    a source without a graph as it is, if no transform is required."""

    @property
    def idle(self) -> bool:
        """Whether the settings are such that it changes nothing; the source then runs as if it were not there."""
        return False

    @property
    def needs_clean(self) -> bool:
        """Whether it uses features of the clean images, which costs a forward pass for each gradient."""
        return False

    @abstractmethod
    def rewrite(self, graph: SourceGraph) -> None:
        """Change the graph of the source for one shape of images.

        Raises:
            AttackError: the graph has nothing that the transform could change.
        """

    def clean_images(self, images: Tensor, draws: Draws) -> Tensor:
        """The clean images as they are shown where their features are taken, (B, 3, H, W)."""
        return images


def check_share(name: str, share: float, most: float = 1.0) -> float:
    """The share, if it is in [0, most].

    Raises:
        ValueError: it is not; the message names the argument.
    """
    if not 0 <= share <= most:  # NaN too
        raise ValueError(f"{name}={share}: must be between 0 and {most:g}")
    return share


def check_names(nodes: Sequence[str]) -> list[str]:
    """The names of nodes as a list.

    Raises:
        ValueError: it is no list of one or more names.
    """
    if isinstance(nodes, str) or not nodes:
        raise ValueError(f"nodes={nodes!r}: must be a list of one or more names of nodes, such as ['{AUTO}']")
    return list(nodes)
