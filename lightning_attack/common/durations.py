"""`duration`: seconds in words, as they stand in logs."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """A time in the two largest units that it has; below ten seconds with one decimal.

    Example:
        >>> [duration(seconds) for seconds in (0.04, 9.96, 59.7, 61, 3600, 100_000)]
        ['0.0 s', '10 s', '1 min', '1 min 1 s', '1 h', '1 d 4 h']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    if rest >= 86400:
        rest = round(rest / 3600) * 3600  # minutes do not matter beside days, nor seconds beside hours
    elif rest >= 3600:
        rest = round(rest / 60) * 60
    words = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words[:2])
