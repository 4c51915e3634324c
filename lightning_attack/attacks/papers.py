"""The papers that attacks come from, as BibTeX; `papers.bib` has the entries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def read_bibtex(text: str) -> dict[str, str]:
    r"""The entries of a BibTeX file by their keys; an entry begins at the start of a line.

    Example:
        >>> read_bibtex("@misc{a2020,\n  title = {A},\n}\n\n@misc{b2021, title = {B}}\n")
        {'a2020': '@misc{a2020,\n  title = {A},\n}', 'b2021': '@misc{b2021, title = {B}}'}
    """
    entries = re.split(r"^(?=@)", text, flags=re.MULTILINE)
    return {found[1]: entry.strip() for entry in entries if (found := re.match(r"@\w+\{([^,\s]+),", entry))}


PAPERS: Mapping[str, str] = read_bibtex(Path(__file__).with_name("papers.bib").read_text("utf-8"))
"""BibTeX entries by their keys."""
