"""`RunFolder`: one folder for each run, which the same run may enter again and no other."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_attack.callbacks.background import WritingCallback
from lightning_attack.common.atomic import complete
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.commands import note_command
from lightning_attack.runs.records import RecordError, read_record, record_files

SETTINGS, LOCK, OTHERS = "settings.json", ".lock", ".lock.others"
PATIENCE = 60.0
"""Seconds that a run waits for processes of a run that was killed: they end after their batch."""


class RunError(OSError):
    """A run folder that this run cannot have."""


class RunFolder(WritingCallback):
    """Make the run's folder, or go on with it, and log TensorBoard events into it: `trainer.log_dir` is this folder.

    The folder is `results/<attack>_<source>/version_N` with the first free N, or `results/<run_name>`. With a name the
    run can go on where it was stopped: images that have a record are not attacked again, whatever the number of
    processes. The settings must be the same; `settings.json` in the folder holds them, the networks by a hash of their
    weights. A damaged record is reported and its image attacked again. A lock keeps a second run out as long as the
    first lives. What earlier parts told TensorBoard is taken away when the run has ended and tells it all again:
    charts have each curve once.

    `command.txt` has one line for each time that the run was started, to be typed again.

    A run that fails before its first record takes its folder away again. Must be the first callback: others write into
    `trainer.log_dir` from their `setup` on.

    Args:
        results: folder of all runs.
        run_name: a name of one's own.
        fresh: start over: a folder of that name is renamed to `<run_name>.old_N`.
        settings: more that must be the same, such as those of the data.
        command: the words that started this run; without them there is no `command.txt`.

    Raises:
        RunError: there is a folder `results/<run_name>` of other settings, without settings, or of a run that is
            under way.
        ValueError: `run_name` is no plain name.
    """

    def __init__(
        self,
        results: str = "results",
        run_name: str | None = None,
        fresh: bool = False,
        settings: Mapping[str, Any] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        if run_name and Path(run_name).name != run_name:
            raise ValueError(f"run_name='{run_name}': must be the name of a folder, without '/' or '..'")
        self.results, self.run_name, self.fresh = results, run_name, fresh
        self.settings, self.command = dict(settings or {}), tuple(command)
        self._made: Path | None = None
        self._parents: list[Path] = []
        self._lock: IO[str] | None = None
        self._logger: TensorBoardLogger | None = None
        self._old_events: list[Path] = []

    def check(self, trainer: Trainer, module: AttackModule) -> None:
        """Raise `RunError` if the run's folder is one of other settings; nothing is written."""
        if self.run_name and not self.fresh:
            self._compare(Path(self.results) / self.run_name, self._settings(trainer, module))

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._made, self._parents = None, []  # of an earlier run with the same Trainer, which is finished and stays
        answer: tuple[str, frozenset[int], Exception | None] = "", frozenset(), None
        if trainer.is_global_zero:
            try:
                answer = (*self._open(trainer, pl_module), None)
            except (OSError, ValueError) as error:
                answer = "", frozenset(), error
        # What went wrong is told to all processes, which would wait for the first one else.
        place, finished, problem = trainer.strategy.broadcast(answer)
        if problem:
            raise problem
        folder = Path(place)
        self._old_events = list(folder.glob("events.out.tfevents.*")) if trainer.is_global_zero else []
        if not trainer.is_global_zero:
            self._lock = (folder / OTHERS).open("a+")
            _lock(self._lock, fcntl.LOCK_SH)
        # Hooks run in the order of the callbacks, and this one is the first: the folder is given back by the last.
        trainer.callbacks.append(_Release(self))  # type: ignore[attr-defined]
        if finished:
            trainer.datamodule.skip(finished)  # type: ignore[attr-defined]
        others = [logger for logger in trainer.loggers if logger is not self._logger]
        self._logger = TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
        trainer.loggers = [self._logger, *others]

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        # The callbacks after this one write all figures, of earlier parts too, into a file of their own.
        for path in self._old_events:
            path.unlink(missing_ok=True)
        self._old_events = []

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        if self._made and not record_files(self._made) and not any(self._made.glob("images/**/*.png")):
            for logger in trainer.loggers:
                logger.finalize("failed")
            shutil.rmtree(self._made, ignore_errors=True)
            for parent in self._parents:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        self.release(trainer)

    def release(self, trainer: Trainer) -> None:
        """Give the folder back, and forget which photos are finished."""
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "skip"):
            datamodule.skip(())
        trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, _Release)]  # type: ignore[attr-defined]
        self._release()

    def _open(self, trainer: Trainer, module: AttackModule) -> tuple[str, frozenset[int]]:
        """The folder, locked, and the images that need not be attacked again."""
        settings = self._settings(trainer, module)
        folder = Path(self.results) / (self.run_name or "")
        if self.run_name and self.fresh and folder.exists():
            self._hold(folder)
            self._release()
            folder.rename(_free(folder.parent, f"{self.run_name}.old"))
        if self.run_name and folder.exists():
            self._compare(folder, settings)
            self._hold(folder)
            for path in folder.rglob(".*.unfinished.*"):
                path.unlink()
            self._note_command(folder)
            return str(folder), frozenset(_finished(folder, getattr(trainer, "datamodule", None)))
        title = re.sub(r"[^\w.-]+", "_", f"{module.attack.name}_{module.source.name}")
        parent = folder.parent if self.run_name else folder / title
        # Those that are made here go again with a failed run; those that were there stay.
        self._parents = [path for path in (parent, *parent.parents) if not path.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        while self._made is None:
            made = folder if self.run_name else _free(parent, "version")
            try:
                made.mkdir()
                self._made = made
            except FileExistsError:  # of two jobs that start together, one gets the number and the other the next
                if self.run_name:
                    raise RunError(f"'{made}' was made by another run just now; choose another --run_name") from None
        self._hold(self._made)
        with complete(self._made / SETTINGS) as path:
            path.write_text(json.dumps(settings, indent=2))
        self._note_command(self._made)
        return str(self._made), frozenset()

    def _note_command(self, folder: Path) -> None:
        if self.command:
            note_command(folder, self.command)

    def _settings(self, trainer: Trainer, module: AttackModule) -> dict[str, Any]:
        own = {"model": module.settings(), "trainer": {"precision": trainer.precision}}
        return json.loads(json.dumps(own | self.settings))

    def _compare(self, folder: Path, settings: dict[str, Any]) -> None:
        if not folder.exists():
            return
        try:
            before = json.loads((folder / SETTINGS).read_text())
        except (OSError, ValueError):
            raise RunError(
                f"'{folder}' exists already and is no run that could go on (no readable {SETTINGS}); choose another "
                "--run_name"
            ) from None
        old, new = dict(_flat(before)), dict(_flat(settings))
        differing = [key for key in {**new, **old} if old.get(key) != new.get(key)]
        if differing:
            lines = [f"  {key}: {old.get(key, 'not there')} before, {new.get(key, 'not there')} now"
                     for key in differing]  # fmt: skip
            raise RunError(
                f"'{folder}' is a run of other settings; choose another --run_name, or --fresh=true to start over:\n"
                + "\n".join(lines)
            )

    def _hold(self, folder: Path) -> None:
        """Lock the folder; the system takes the lock away with the process, whatever becomes of that."""
        lock = (folder / LOCK).open("a+")
        until = time.monotonic() + PATIENCE
        while not _lock(lock, fcntl.LOCK_EX):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            # Processes that read photos for a run that was killed hold its lock until they notice.
            if _alive(holder) or time.monotonic() > until:
                lock.close()
                raise RunError(f"'{folder}' is in use by another run ({holder}); wait for it or stop it")
            time.sleep(0.2)
        if (folder / OTHERS).exists():
            with (folder / OTHERS).open("a+") as others:
                while not _lock(others, fcntl.LOCK_EX):
                    if time.monotonic() > until:
                        lock.close()
                        raise RunError(f"processes of an earlier run in '{folder}' are still alive; stop them")
                    time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock

    def _release(self) -> None:
        if self._lock:
            if self._lock.name.endswith(LOCK):
                self._lock.truncate(0)  # not deleted: another run may have opened it already
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # for processes that were forked, too
            self._lock.close()
            self._lock = None


def _lock(file: IO[str], kind: int) -> bool:
    """Whether a file could be locked; where the file system has no locks, they are taken to be free."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        rank_zero_warn(f"this file system has no locks ({error}); see to it that no other run uses '{file.name}'")
    return True


class _Release(Callback):
    """Gives a run's folder back when all other callbacks are done with it."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        trainer.strategy.barrier("the run's folder is done")
        self.folder.release(trainer)


def _alive(holder: str) -> bool:
    """Whether the process that wrote a lock may be alive; one of another machine may."""
    match = re.fullmatch(r"pid (\d+) on (.+)", holder)
    if not match or match[2] != socket.gethostname():
        return True
    return Path(f"/proc/{match[1]}").exists() or not Path("/proc").exists()


def _finished(folder: Path, datamodule: Any) -> Iterator[int]:
    """The images that have a whole record of the photo as it is now, and their PNG if the run writes them."""
    files = record_files(folder)
    if files and not hasattr(datamodule, "skip"):
        raise RunError(f"'{folder}' has finished images, and only a SegmentationDataModule can leave them out")
    now = datamodule.digests(int(path.stem) for path in files) if files else {}
    for path in files:
        try:
            record = read_record(path)
        except RecordError as error:
            rank_zero_warn(f"{error}; its image is attacked again")
            continue
        if (folder / "images").is_dir() and not (folder / "images" / f"{record.name}.png").is_file():
            rank_zero_warn(f"'{folder / 'images' / record.name}.png' is gone; its image is attacked again")
            continue
        if record.digest and record.digest != now.get(record.index):
            if record.index in now:
                rank_zero_warn(f"the photo or mask of '{record.name}' has changed since; it is attacked again")
            continue
        yield record.index


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as keys with dots."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _free(parent: Path, title: str) -> Path:
    """The first path `<title>_N` that does not exist."""
    number = 0
    while (parent / f"{title}_{number}").exists():
        number += 1
    return parent / f"{title}_{number}"
