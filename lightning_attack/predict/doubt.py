"""`Doubt`: something that looks wrong with a run, though it can go on.

An attack changes nothing about these doubts: a network that does not recognise the clean photos gives figures that mean
nothing, however neat the table is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning_attack.common.errors import UserError


class Doubt(NamedTuple):
    """Something that looks wrong, though the run can go on.

    Attributes:
        network: name of the network; empty where it is about all, or about the data.
        kind: `near_chance`, `class_order`, `never_predicted`, `probabilities`, `not_repeatable`, `normalisation`,
            `random_weights`, `orientation`, `names` or `labels`.
        message: what looks wrong and what to check, in a sentence or two.
    """

    network: str
    kind: str
    message: str


class PlausibilityError(UserError, ValueError):
    """A doubt in a run with `--strict`."""


LABELS_PREDICTED = Doubt(
    "",
    "labels",
    "the data has no masks, so that the clean prediction of the source stands for the labels: its clean mIoU is 100 by "
    "definition. Set data.dataset to photos with masks",
)
"""No warning, since photos without masks are a usual input, but refused by `--strict`."""


def refuse(doubts: Sequence[Doubt]) -> None:
    """Raise `PlausibilityError` if there are doubts.

    Example:
        >>> refuse([])
        >>> refuse([Doubt("net", "near_chance", "'net' is no better than chance.")])
        Traceback (most recent call last):
            ...
        lightning_attack.predict.doubt.PlausibilityError: 'net' is no better than chance.
        this is an error because of --strict; without it, it is a warning
    """
    if doubts:
        said = "\n".join(doubt.message for doubt in doubts)
        raise PlausibilityError(f"{said}\nthis is an error because of --strict; without it, it is a warning")


def as_plain(doubts: Sequence[Doubt]) -> list[dict[str, Any]]:
    """The doubts as `transfer.json` has them."""
    return [doubt._asdict() for doubt in doubts]
