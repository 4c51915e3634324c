"""How many passes an attack makes, counted before any run: for `attacks`, `study --dry-run`, and to choose engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.attacks import Attack
from lightning_attack.attacks.given import takes_given
from lightning_attack.attacks.wrappers.per_window import PerWindow
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble
from lightning_attack.predict.cost import count_passes


class Passes(NamedTuple):
    """Passes of the source per image."""

    forward: float
    backward: float


def backward_passes(attack: Attack, members: int = 1, by: Any = "logits") -> float | None:
    """Backward passes of the source per image, see `all_passes`.

    Example:
        >>> from lightning_attack.attacks import NoAttack, vmi_fgsm
        >>> backward_passes(vmi_fgsm(steps=3, samples=4)), backward_passes(NoAttack())
        (15.0, 0.0)
    """
    found = all_passes(attack, members, by)
    return None if found is None else found.backward


def all_passes(attack: Attack, members: int = 1, by: Any = "logits") -> Passes | None:
    """Passes of the source per image: counted on a network of a few layers and two images of 16 x 16.

    Args:
        attack: the attack.
        members: of the source, if it is an ensemble; the passes of all of them count.
        by: of the ensemble, see `Ensemble`.

    Returns:
        The numbers; None where the attack cannot be run on that small network, because it names layers of another one,
        needs an ensemble, or, as a function of somebody's own may, takes the source's size for granted.

    Example:
        >>> from lightning_attack.attacks import cfm
        >>> all_passes(cfm(steps=3))                # the clean images pass through the source in each step, too
        Passes(forward=6.0, backward=3.0)
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks: list[nn.Module] = [_Small() for _ in range(max(members, 1))]
        source = Ensemble(networks, by=by) if members > 1 else networks[0]
        images, labels = torch.rand(2, 3, 16, 16), torch.randint(_Small.classes, (2, 16, 16))
        try:
            with count_passes(source) as passes:
                attack(source, images, labels, [0, 1])
        except Exception:  # an attack of somebody's own may raise anything on a network that is not the source
            return None
    return Passes(passes["forward"] / len(images), passes["backward"] / len(images))


def expected_passes(attack: Attack, source: nn.Module) -> Callable[[], float]:
    """Counts the backward passes of the source for each image, of each member if it is an ensemble, once it is called.

    Where they cannot be counted they are its steps, at least one.
    """
    members, by = len(getattr(source, "members", [source])), getattr(source, "by", "logits")
    plain = attack.attack if isinstance(attack, PerWindow) else attack  # windows are images of their own

    def count() -> float:
        if takes_given(plain):
            return 0.0
        passes = backward_passes(deepcopy(plain), members, by)  # it may count its calls
        return passes / members if passes else float(getattr(plain, "steps", 1))

    return count


def shown(sizes: Mapping[tuple[int, int], int], windows: Windows | None) -> Mapping[tuple[int, int], int]:
    """How many images of each height and width networks are shown in one look at all images of a run.

    Example:
        >>> shown({(6, 13): 2, (4, 5): 1}, Windows(6, 2 / 3))
        {(6, 6): 7}
    """
    if windows is None:
        return sizes
    return {windows.shape: sum(count * len(windows.grid(*size)) for size, count in sizes.items())}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run in one thread: for work so small, several threads only wait for each other."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


class _Small(nn.Module):
    """A small network that is not linear, so that attacks which stop at their goal do not reach it at once.

    It takes images of any size, since attacks may resize them. It has what source transforms change: a ReLU, a residual
    connection, attention, features a quarter as large.
    """

    classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.coarse = nn.Conv2d(4, 4, 4, stride=4)
        self.last = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x = x + self.branch(x)
        channels = x.flatten(2)
        attended = (channels @ channels.mT).softmax(-1) @ channels
        height, width = x.shape[-2:]
        whole = F.pad(attended.view_as(x), (0, -width % 4, 0, -height % 4))
        return self.last(F.interpolate(self.coarse(whole), scale_factor=4)[..., :height, :width] + x)
