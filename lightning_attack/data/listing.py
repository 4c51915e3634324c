"""Find the files of a data set: one listing for all, so that what lies in a folder is what is attacked."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from lightning_attack.data.base import DataError
from lightning_attack.data.notices import warn

_OF_PROGRAMS = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
"""What archivers, network drives and file managers leave in folders: no part of any data set."""


def find_files(
    root: str | Path, wanted: Callable[[Path], bool], expected: str, without: Path | None = None
) -> list[Path]:
    """All files below a folder that are wanted, in the order of their paths.

    Hidden files and folders (`.ipynb_checkpoints`, `._photo.png`) and those that other programs leave (`__MACOSX`) are
    no part of a data set. Links to folders are followed. Files that are passed over for their names are counted in a
    warning, and so are links to folders that are listed anyway, whose files would otherwise be taken twice (or without
    end, where a link leads to a folder that holds it).

    Args:
        root: the folder.
        wanted: whether a file is one of the data set, by its path.
        expected: which files are, for the warning.
        without: a folder inside `root` that is left out, if it lies there.

    Raises:
        DataError: the name of a wanted file is no text in UTF-8.
    """
    found: list[Path] = []
    passed_over: Counter[str] = Counter()
    links: list[Path] = []
    left_out = {_identity(without)} if without is not None and without.is_dir() else set()
    seen: set[tuple[int, int]] = set()

    def enter(folder: Path) -> None:
        if _identity(folder) in left_out:
            return
        seen.add(_identity(folder))
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            path = folder / entry.name
            if is_clutter(entry.name):
                continue
            # A folder with the name of a photo is listed: reading it says what is wrong with it.
            if wanted(path):
                found.append(_readable(path))
            elif entry.is_dir(follow_symlinks=False):
                enter(path)
            elif entry.is_dir():
                links.append(path)
            else:
                passed_over[path.suffix.lower() or "without suffix"] += 1

    enter(Path(root))
    twice: list[Path] = []
    while links:  # after all real folders, so that files keep the names that they have there
        link = links.pop(0)
        if _identity(link) in seen:
            twice.append(link)
        else:
            enter(link)
    if passed_over:
        kinds = [f"{count} {suffix}" for suffix, count in passed_over.most_common()]
        shown = ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")
        warn(f"{passed_over.total()} of the files in '{root}' are passed over: {shown} (expected: {expected})")
    if twice:
        warn(
            f"'{twice[0]}' is a link to '{twice[0].resolve()}', whose files are listed already; it is passed over"
            + (f", as are {len(twice) - 1} other links" if len(twice) > 1 else "")
        )
    return sorted(found)


def _readable(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name of {str(path)!r} is not in UTF-8, so that tables and files cannot show it; rename it "
            "(`convmv -f latin1 -t utf8 --notest -r FOLDER` renames all files of a folder)"
        ) from error
    return path


def has_suffix(suffixes: Collection[str]) -> Callable[[Path], bool]:
    """Whether a path ends in one of these suffixes, in capitals or not."""
    return lambda path: path.suffix.lower() in suffixes


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or left by another program."""
    return name.startswith(".") or name in _OF_PROGRAMS


def normalised(name: str) -> str:
    """A name with each accented letter as one character (NFC); macOS writes letter and accent apart (NFD)."""
    return unicodedata.normalize("NFC", name)


def existing(path: Path) -> Path:
    """The path, or the same file name with its accents in another form where only that exists."""
    if str(path).isascii() or path.exists():
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    # Folders may be written in one form and files in the other.
    mixed = (path.parent / unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))
    return next((one for one in (*forms, *mixed) if one.exists()), path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
