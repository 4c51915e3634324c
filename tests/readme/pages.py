"""The READMEs of the repository, and the commands and blocks of code in them."""

import os
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"build", "dist", "results", "site", "lightning_logs", "__pycache__"}


def _pages():
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".github" or not (name in _NOT_OURS or name[0] == ".")]
        yield from (Path(folder) / name for name in files if name.endswith(".md"))


PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in sorted(_pages())}
"""All Markdown files by their path: READMEs, the guide for contributors, the changelog."""


def blocks(language):
    """The blocks of a language, with the page of each."""
    return [
        (page, block)
        for page, text in PAGES.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


NOTEBOOK = "lightning_attack/report/notebook/README.md"
"""Its blocks are cells, each of which needs those before it."""

COMMANDS = list(dict.fromkeys(line for _, block in blocks("bash") for line in block.splitlines()))
"""Each line of each block of commands, once."""

FILES = {match[1]: block for language in ("yaml", "python") for _, block in blocks(language)
         if (match := re.match(r"# (\w+\.(?:yaml|py))", block))}  # fmt: skip
"""Files that the READMEs tell to write: blocks whose first line is their name."""


def commands(*words):
    """The commands of the tool that begin so."""
    return [line for line in COMMANDS if line.startswith(" ".join(("lightning-attack", *words, "")))]


def arguments(command):
    """What `main` is given for a command."""
    return shlex.split(command)[1:]
