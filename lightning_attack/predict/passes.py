"""`backward_passes`: how many an attack makes, counted before any run, for `study --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attack.attacks import Attack
from lightning_attack.models import Ensemble
from lightning_attack.predict.cost import count_passes


def backward_passes(attack: Attack, members: int = 1, by: Any = "logits") -> float | None:
    """Backward passes of the source per image: counted on a network of three layers and two images of 16 x 16.

    Args:
        attack: the attack.
        members: of the source, if it is an ensemble; the passes of all of them count.
        by: of the ensemble, see `Ensemble`.

    Returns:
        The number; None where the attack cannot be run on that small network, because it names layers of another one or
        needs an ensemble.

    Example:
        >>> from lightning_attack.attacks import NoAttack, vmi_fgsm
        >>> backward_passes(vmi_fgsm(steps=3, samples=4)), backward_passes(NoAttack())
        (15.0, 0.0)
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks: list[nn.Module] = [_Small() for _ in range(max(members, 1))]
        source = Ensemble(networks, by=by) if members > 1 else networks[0]
        images, labels = torch.rand(2, 3, 16, 16), torch.randint(_Small.classes, (2, 16, 16))
        try:
            with count_passes(source) as passes:
                attack(source, images, labels, [0, 1])
        except ValueError:
            return None
    return passes["backward"] / len(images)


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

    It has what source transforms change: a ReLU, a residual connection, attention, features a quarter as large.
    """

    classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(4, 4, 4, stride=4), nn.Upsample(scale_factor=4))
        self.last = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x = x + self.branch(x)
        channels = x.flatten(2)
        attended = (channels @ channels.mT).softmax(-1) @ channels
        return self.last(self.coarse(attended.view_as(x)) + x)
