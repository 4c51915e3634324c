"""The command `export`: the network of a checkpoint as one file for predict."""

from __future__ import annotations

import json

from lightning_attack.cli.parser import Parser
from lightning_attack.cli.program import program
from lightning_attack.models import export_checkpoint


def run(words: list[str]) -> int:
    """Run `export --ckpt FILE --to FILE`, see `models.export_checkpoint`; returns the exit code."""
    parser = Parser(
        prog=f"{program()} export",
        description="Write the network of a checkpoint to one file for predict.",
    )
    parser.add_function_arguments(export_checkpoint, skip={"overwrite"})
    parser.add_argument(
        "--overwrite", type=bool, nargs="?", const=True, default=False, help="replace the file if it exists"
    )
    about = export_checkpoint(**parser.parse_args(words[1:]).as_dict())
    print(json.dumps(about, indent=2))
    return 0
