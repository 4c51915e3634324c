"""Templates of pages: HTML files that need no other file and no network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
"""The folder of templates, styles and scripts."""
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def style() -> str:
    """The styles of all pages."""
    return (HERE / "page.css").read_text("utf-8")


def policy(*scripts: str) -> str:
    """Content security policy: these scripts, inline styles and pictures, and no network.

    Example:
        >>> policy()
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    """
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    known = " ".join(f"'sha256-{one}'" for one in hashes)
    allowed = f"script-src {known}; " if scripts else ""
    inside = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {allowed}{inside}"
