"""How long the steps of an attack are: all alike, falling, or drawn anew for each image."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

from lightning_attack.attacks.random import Draws

StepSchedule = Literal["constant", "cosine", "linear", "dynamic"]
"""Length of step t = 0 .. T-1 in units of the attack's step size. Its mean over the steps is 1 (`dynamic`: on average).

    constant    1
    cosine      1 + cos(pi (t + 1/2) / T)           from 2 down to 0, slowly at both ends
    linear      2 (1 - (t + 1/2) / T)               from 2 down to 0, evenly
    dynamic     U(0, 2), drawn for each image and step

One published summary of TranSegPGD (arXiv 2312.02207) names "a dynamic attack step size to increase the diversity of
generated adversarial examples" as its second contribution, and asks how it "is determined at each iteration". No
formula is known to us. `dynamic` is the reading that does what that sentence says: steps of random lengths take equal
images along different paths. If the size was meant to change with the iteration only, `cosine` and `linear` are it.
"""


def check_schedule(schedule: StepSchedule) -> StepSchedule:
    """The schedule, if there is one of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if schedule not in get_args(StepSchedule):
        raise ValueError(f"step_schedule='{schedule}': must be one of {', '.join(get_args(StepSchedule))}")
    return schedule


def step_factor(schedule: StepSchedule, step: int, steps: int, draws: Draws) -> float | Tensor:
    """Length of a step in units of the step size: a number, or for `dynamic` one for each image, (B, 1, 1, 1).

    Example:
        >>> [round(step_factor("cosine", step, 3, Draws([0])), 3) for step in range(3)]
        [1.866, 1.0, 0.134]
        >>> [round(step_factor("linear", step, 3, Draws([0])), 3) for step in range(3)]
        [1.667, 1.0, 0.333]
    """
    if schedule == "constant":
        return 1.0
    if schedule == "dynamic":
        return draws.uniform("step size", (1, 1, 1), 0.0, 2.0)
    done = (step + 0.5) / steps
    return 1 + math.cos(math.pi * done) if schedule == "cosine" else 2 * (1 - done)
