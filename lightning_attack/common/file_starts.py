"""What a file is by its first bytes, where another one was expected: a page, an archive, a text."""

from __future__ import annotations

import re

_STARTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; `git lfs pull` fetches it",
    b"<!doctype": "an HTML page, not the file: open the address in a browser, the site may ask for a confirmation",
    b"<html": "an HTML page, not the file: open the address in a browser, the site may ask for a confirmation",
    b"<?xml": "an XML document, often the error of a storage service; download the file again",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras writes them; convert it to a PyTorch state dict",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"%PDF": "a PDF document",
    b"{": "JSON text, often the error of a download; download the file again",
    b"\x93NUMPY": "a NumPy array",
}


def kind_of_start(start: bytes) -> str | None:
    r"""What a file with these first 512 bytes is, and what to do about it; None if that is not known.

    Example:
        >>> kind_of_start(b"\n<!DOCTYPE html><title>Quota exceeded</title>")[:27]
        'an HTML page, not the file:'
        >>> kind_of_start(b"")
        'an empty file; download it again'
        >>> kind_of_start(b"Access denied")
        "a text, 'Access denied'; download the file again"
    """
    if not start:
        return "an empty file; download it again"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind in _STARTS.items():
        if start.startswith(beginning) or text.startswith(beginning.lower()):
            return kind
    if re.fullmatch(rb"[A-Z][\x20-\x7e\s]{3,400}", start):
        return f"a text, '{' '.join(start.decode('ascii').split())[:60]}'; download the file again"
    return None
