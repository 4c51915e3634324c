"""Errors of the libraries and of the operating system, said in a sentence or two with the remedy.

All commands end in `main`, which asks `translated`. What is not known here is a fault of this program, and keeps its
traceback. Classes are compared by name, so that no library is imported for it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import NamedTuple

from lightning_attack.common.errors import UserError

_SYSTEM = {
    errno.ENOENT: "'{place}': there is no such file or folder, and none can be made there",
    errno.EACCES: "'{place}' cannot be used; choose a place where you may write",
    errno.EPERM: "'{place}' cannot be used; choose a place where you may write",
    errno.EROFS: "'{place}' is on a disk that can only be read; choose another place",
    errno.ENOTDIR: "'{place}': a part of this path is a file, not a folder",
    errno.EEXIST: "'{place}': a part of this path is a file, not a folder",
    errno.EISDIR: "'{place}' is a folder; a file is expected",
    errno.ENOSPC: "the disk is full{at}; make room, and give the same command again",
    errno.EDQUOT: "your quota of the disk is used up{at}; make room, and give the same command again",
    errno.EMFILE: "too many files are open{at}; raise the limit with `ulimit -n 4096`, or lower data.num_workers",
}


DEVICES = (
    "the first GPU: --trainer.accelerator=gpu --trainer.devices=[0]; two GPUs: --trainer.devices=2; without a GPU: "
    "--trainer.accelerator=cpu --trainer.devices=1"
)
"""What to write for devices."""


class _Rule(NamedTuple):
    """A message that is known: class of the error (`""` = any), pattern in its text, and what to say."""

    kind: str
    pattern: str
    says: Callable[[re.Match[str]], str]


_RULES = (
    _Rule(
        "ValueError",
        r"Expected more than 1 value per channel when training, got input size ([^\n]+)",
        lambda match: (
            f"a batch normalisation of the network saw one value per channel ({match[1]}), which has no variance\n"
            "train with --data.batch_size=2 or more (on several devices, each needs 2)"
        ),
    ),
    _Rule(
        "",
        r"(?:OutOfMemoryError|out of memory|can't allocate memory)",
        lambda _: "memory is full\nlower data.batch_size, or the size of the photos (data.size, data.augment.crop)",
    ),
    _Rule(
        "",
        r"(?:open file failed with strerror: |PytorchStreamWriter failed writing|SafetensorError: .*Io(?:Error)?)(.*)",
        lambda match: (
            f"the file cannot be written{match[1] and f' ({match[1].strip()})'}\nis there room on the disk, and "
            "may you write there?"
        ),
    ),
    _Rule(
        "ValueError",
        r"Tried to step (\d+) times\. The specified number of total steps is (\d+)",
        lambda match: (
            f"the checkpoint's learning rate ends after {match[2]} steps, so training cannot go on to step {match[1]}\n"
            "go on with the trainer.max_epochs, data and batch size that it began with, or begin anew from its weights"
        ),
    ),
    _Rule(
        "",
        r"could not find the monitored key in the returned metrics: \[([^\]]+)\]",
        lambda match: f"a callback monitors a figure that is not logged\nlogged are {match[1]}",
    ),
    _Rule(
        "",
        r"NVIDIA driver on your system is too old \(found version (\d+?)0?(\d)0\)",
        lambda match: (
            f"the NVIDIA driver is too old for this torch: it knows CUDA {match[1]}.{match[2]}\nupdate the driver, or "
            "install a torch for that CUDA (pytorch.org has a list); --trainer.accelerator=cpu runs without a GPU"
        ),
    ),
    _Rule(
        "",
        r"No supported gpu backend found|`(?:CUDA|MPS)Accelerator` can not run",
        lambda _: "there is no GPU that torch can use\n--trainer.accelerator=cpu or auto runs without one",
    ),
    _Rule(
        "",
        r"`devices` selected with `\w+Accelerator` should be",
        lambda _: f"trainer.devices must be a number of devices above 0\n{DEVICES}",
    ),
    _Rule(
        "",
        r"product \((\d+) \* (\d+)\) does not match the world size \((\d+)\)",
        lambda match: (
            f"torchrun started {match[3]} processes, but trainer.devices={match[1]} times trainer.num_nodes={match[2]} "
            f"are {int(match[1]) * int(match[2])}\ngive --trainer.devices and --trainer.num_nodes as torchrun has them"
        ),
    ),
    _Rule(
        "",
        r"You set `--ntasks=(\d+)` in your SLURM",
        lambda match: (
            f"the SLURM job says --ntasks={match[1]}, which leaves open how many tasks a node has\n"
            f"say --ntasks-per-node (and --nodes) instead, as configs/cluster/slurm.sbatch does"
        ),
    ),
    _Rule(
        "",
        r"^Dist\w*Error: |gloo/transport.*[Cc]onnection",
        lambda _: "another process of this run has ended or cannot be reached; its own message says why",
    ),
)
_FORWARDED = ("MisconfigurationException", "ModuleNotFoundError")
"""Errors whose own words are for the user."""


def translated(error: BaseException) -> str | None:
    r"""What to say to the user about an error; None if it is not known, and a traceback is due.

    Example:
        >>> translated(PermissionError(13, "Permission denied", "results"))
        "'results' cannot be used; choose a place where you may write (Permission denied)"
        >>> translated(ValueError("Tried to step 3 times. The specified number of total steps is 2")).splitlines()[0]
        "the checkpoint's learning rate ends after 2 steps, so training cannot go on to step 3"
        >>> old = "The NVIDIA driver on your system is too old (found version 11040). Please update"
        >>> translated(RuntimeError(old)).splitlines()[0]
        'the NVIDIA driver is too old for this torch: it knows CUDA 11.4'
        >>> translated(ZeroDivisionError("division by zero"))
    """
    if isinstance(error, UserError):
        return _own(error)
    if said := known_error(error):
        return said
    if isinstance(error, OSError):
        return _system(error)
    return " ".join(str(error).split()) if any(name in _kinds(error) for name in _FORWARDED) else None


def known_error(error: BaseException) -> str | None:
    """What to say about an error of a library that has a sentence of its own here; None if it has none."""
    kinds = _kinds(error)
    for kind, pattern, says in _RULES:
        match = re.search(pattern, f"{kinds[0]}: {error}")
        if match and (not kind or kind in kinds):
            return says(match)
    return None


def _kinds(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _own(error: UserError) -> str:
    """The text of an error of this package; one that was raised in a worker of a loader has a traceback around it."""
    text = str(error)
    match = re.match(r"Caught (\w+) in DataLoader worker", text)
    inner = match and re.search(rf"^[\w.]*\b{match[1]}: (.+)\Z", text, re.DOTALL | re.MULTILINE)
    return inner[1].strip() if inner else text


def _system(error: OSError) -> str:
    known = _SYSTEM.get(error.errno or 0)
    if known is None or (error.filename is None and "{place}" in known):
        return str(error)
    place = error.filename
    at = f" ('{place}')" if place else ""
    return f"{known.format(place=place, at=at)} ({error.strerror})"
