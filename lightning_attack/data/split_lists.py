"""Read lists of photos, as the data sets have them and as other programs write them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lightning_attack.data.base import DataError
from lightning_attack.data.listing import normalised
from lightning_attack.data.notices import warn

_SUFFIXES = (".jpg", ".jpeg", ".png", ".mat")


class SplitList(NamedTuple):
    """The names in a list of photos."""

    file: Path
    lines: dict[str, int]
    """The line in which each name stands, by name, in the order of the list."""

    @property
    def names(self) -> list[str]:
        return list(self.lines)

    def where(self, name: str) -> str:
        """Where a name stands, for messages."""
        return f"line {self.lines[name]} of '{self.file}'"


def read_split(file: Path) -> SplitList:
    """Read a list of photos with one name in each line.

    The text may be UTF-8 or UTF-16, with a byte order mark or not, with line ends of Unix or Windows. Blank lines and
    what follows a `#` are no names. A name may have a folder before it and a suffix behind (`JPEGImages/a.jpg`), and
    the file of its mask may follow on the line. A name that stands there twice is counted once, with a warning.

    Raises:
        DataError: the file is no text, or a line holds something else.
    """
    lines: dict[str, int] = {}
    repeated: list[str] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        words = [word for word in re.split(r"[\s,;]+", re.sub(r"(^|\s)#.*", "", line)) if word]
        if not words:
            continue
        name, *others = [_stem(word) for word in words]
        if others and others != [name]:
            raise DataError(
                f"line {number} of '{file}' is '{line.strip()[:80]}'; expected the name of one photo, or a photo and "
                "its mask under the same name"
                + (". Lists with 1 and -1 say which photos show a class: keep the names with 1" * (others[0] in _FLAGS))
            )
        if name in lines:
            repeated.append(f"'{name}' in lines {lines[name]} and {number}")
        lines.setdefault(name, number)
    if repeated:
        warn(f"'{file}' names photos more than once, which count once: {_first(repeated)}")
    return SplitList(file, lines)


@contextmanager
def listed(names: SplitList, name: str) -> Iterator[None]:
    """Add to the error of reading a file that is not there where the list asks for it."""
    try:
        yield
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise DataError(f"{error}; {names.where(name)} asks for it") from error
        raise


_FLAGS = ("-1", "0", "1")


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        if b"\0" in content:  # UTF-16 without its mark: in names of ASCII letters every second byte is zero
            return content.decode("utf-16-be" if content.startswith(b"\0") else "utf-16-le")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list of photos '{file}' cannot be read ({error}); save it as UTF-8 text") from error


def _stem(word: str) -> str:
    path = PurePosixPath(word.replace("\\", "/"))
    return normalised(path.stem if path.suffix.lower() in _SUFFIXES else path.name)


def _first(items: list[str], shown: int = 3) -> str:
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")
