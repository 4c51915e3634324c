"""`PlainParser`: parser of the commands that read runs, which need neither torch nor Lightning."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, NoReturn

from lightning_attack.cli.errors import UsageError, explain
from lightning_attack.cli.internals import option_names
from lightning_attack.report.intervals import DRAWS


class PlainParser(ArgumentParser):
    """As `ArgumentParser`, without abbreviated options; mistakes are explained as those of other commands are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(explain(message, option_names(self), {}))


def add_draws(parser: ArgumentParser) -> None:
    """Add the option `--draws` of the commands that show intervals."""
    parser.add_argument(
        "--draws",
        type=int,
        default=DRAWS,
        metavar="N",
        help="how often images are drawn for the intervals (default: %(default)s)",
    )
