"""Locks of a run's folder: one run at a time, and none while processes of an earlier one still write.

The first process of a run holds `.lock`, each of the others a `.lock.process_N`. The system takes a lock away with the
process that holds it, however that ends. Who holds the folder stands in `.lock.holder`: not in the lock itself, which
Windows does not let others read.
"""

from __future__ import annotations

import os
import re
import socket
import time
import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_attack.runs.errors import RunError
from lightning_attack.runs.names import HOLDER, LOCK, lock_of_process, locks_of_processes

PATIENCE = 60.0
"""Seconds that a run waits for processes of a run that was killed: they end after their batch."""
_PAUSE = 0.2


class FolderLock:
    """A lock that this process has; `release` gives it back."""

    def __init__(self, lock: FileLock, holder: Path | None = None) -> None:
        self._lock, self._holder = lock, holder

    def release(self) -> None:
        """Give the lock back, for processes that were forked too; the file stays, for another may have opened it."""
        if self._holder:
            self._holder.unlink(missing_ok=True)
        self._lock.release(force=True)


def lock_folder(folder: Path) -> FolderLock:
    """The lock of a run's first process.

    Processes of a run that was killed may be alive: they are waited for, `PATIENCE` seconds at most. Where the file
    system has no locks, a warning says so.

    Raises:
        RunError: another run is under way in the folder, or processes of an earlier one do not end.
    """
    own, holder = folder / LOCK, folder / HOLDER
    lock, until = _file_lock(own), time.monotonic() + PATIENCE
    while not _acquired(lock, own):
        who = _read(holder)
        if _may_be_alive(who) or time.monotonic() > until:
            raise RunError(f"'{folder}' is in use by another run ({who}); wait for it or stop it")
        time.sleep(_PAUSE)
    for path in locks_of_processes(folder):
        other = _file_lock(path)
        while not _acquired(other, path, warn=False):
            if time.monotonic() > until:
                lock.release(force=True)
                raise RunError(f"processes of an earlier run in '{folder}' are still alive; stop them")
            time.sleep(_PAUSE)
        other.release(force=True)
    holder.write_text(f"pid {os.getpid()} on {socket.gethostname()}")
    return FolderLock(lock, holder)


def lock_process(folder: Path, rank: int) -> FolderLock:
    """The lock of another process of a run, by its number: a later run waits until this one is gone.

    Raises:
        RunError: another process has this number in the same folder.
    """
    path = lock_of_process(folder, rank)
    lock = _file_lock(path)
    if not _acquired(lock, path, warn=False):
        raise RunError(f"'{folder}' is in use by another process of rank {rank}; stop it")
    return FolderLock(lock)


def _file_lock(path: Path) -> FileLock:
    path.touch()  # what keeps the file from being made is an error; what keeps it from being locked is none
    # Without a substitute of its own: the file that it would leave behind outlives the process that made it.
    return FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)


def _acquired(lock: FileLock, path: Path, warn: bool = True) -> bool:
    """Whether the lock could be had; where the file system has no locks, they are taken to be free."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if warn:
            warnings.warn(
                f"this file system has no locks ({error}); see to it that no other run uses '{path}'", stacklevel=2
            )
    return True


def _read(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _may_be_alive(holder: str) -> bool:
    """Whether the process that wrote a holder's line may be alive; one of another machine may."""
    match = re.fullmatch(r"pid (\d+) on (.+)", holder)
    if not match or match[2] != socket.gethostname():
        return True
    return Path(f"/proc/{match[1]}").exists() or not Path("/proc").exists()
