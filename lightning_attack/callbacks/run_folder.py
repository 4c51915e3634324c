"""`RunFolder`: the output folder of a run, made, locked, and opened again when the same run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_attack.callbacks.run_logger import RunLogger, is_default
from lightning_attack.common.atomic import check_folder
from lightning_attack.common.data_module import of_data
from lightning_attack.common.expanded import expanded
from lightning_attack.common.first_process import in_first_process
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.commands import one_line
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.lock import FolderLock, lock_process
from lightning_attack.runs.names import event_files, run_title
from lightning_attack.runs.opening import Digests, OpenRun, Place, open_run
from lightning_attack.runs.settings import Advice, check_same

__all__ = ["RunError", "RunFolder"]


class RunFolder(Callback):
    """Make the run's folder, or go on with it, and log TensorBoard events into it: `trainer.log_dir` is this folder.

    The folder is `results/<attack>_<source>/version_N` with the first free N, or `results/<run_name>`. With a name the
    run can go on where it was stopped: images that have a record are not attacked again, whatever the number of
    processes. The settings must be the same; `settings.json` in the folder holds them, the networks by a hash of their
    weights. A damaged record is reported and its image attacked again. A lock keeps a second run out as long as the
    first lives. What earlier parts told TensorBoard is taken away when the run has ended and tells it all again:
    charts have each curve once.

    `command.txt` has one line for each time that the run was started, to be typed again. A run of one process that
    fails before its first record takes its folder away again.

    The order of the list of callbacks does not matter: before anything is set up, `AttackModule` calls `arrange`. This
    callback becomes the first, so that every other one finds `trainer.log_dir` right in its `setup`. Callbacks that
    have a `place` (those of this package) swap their positions so that the numbers ascend; others stay where they are.
    Lightning's default logger, which would write into the working directory, is replaced by one that writes into the
    run's folder; loggers that were given to the Trainer stay.

    Args:
        results: folder of all runs; `~` and variables in it are replaced.
        run_name: a name of one's own.
        fresh: start over: a folder of that name is renamed to `<run_name>.old_N`.
        settings: more that must be the same, such as those of the data.
        command: the words that started this run; without them there is no `command.txt`.

    Raises:
        RunError: there is a folder `results/<run_name>` of other settings, without settings, or of a run that is
            under way.
        ValueError: `run_name` is not the name of a folder.
    """

    advice = Advice()
    """What is said to the user about a folder of other settings."""

    def __init__(
        self,
        results: str = "results",
        run_name: str | None = None,
        fresh: bool = False,
        settings: Mapping[str, Any] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        if run_name and (Path(run_name).name != run_name or run_name == ".."):
            raise ValueError(f"run_name='{run_name}': must be the name of a folder, without '/' or '..'")
        self.results, self.run_name, self.fresh = expanded(results), run_name, fresh
        self.settings, self.command = dict(settings or {}), tuple(command)
        self.folder: Path | None = None
        """The folder of the last run, once it is set up."""
        self._run: OpenRun | FolderLock | None = None  # in the first process the folder, in others only a lock in it
        self._logger: RunLogger | None = None
        self._old_events: list[Path] = []

    def check(self, trainer: Trainer, module: AttackModule) -> None:
        """Raise `RunError` for a folder of other settings, `OSError` if it cannot be made; nothing is written."""
        folder = Path(self.results) / (self.run_name or "")
        check_folder(folder)
        if self.run_name and not self.fresh and folder.exists():
            earlier = partial(self._earlier, trainer, module)
            check_same(folder, self._settings(trainer, module), earlier, self.advice)

    def arrange(self, trainer: Trainer) -> None:
        """Put the trainer's callbacks into the order in which they work, before any of them is set up."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        ours = iter(sorted((one for one in others if hasattr(one, "place")), key=lambda one: one.place))
        ordered = [next(ours) if hasattr(one, "place") else one for one in others]
        trainer.callbacks = [self, *ordered]  # type: ignore[attr-defined]
        trainer.loggers = [logger for logger in trainer.loggers
                           if logger is not self._logger and not is_default(logger, trainer)]  # fmt: skip

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        if trainer.callbacks[0] is not self:  # type: ignore[attr-defined]
            raise RunError(
                "RunFolder must be the first callback: others ask for its folder when they are set up. AttackModule "
                "sees to it in `configure_callbacks`; a class of your own that overrides it must call super()"
            )
        self._run = None
        folder, finished = in_first_process(trainer, lambda: self._open(trainer, pl_module))
        self.folder = folder
        if not trainer.is_global_zero:
            self._run = lock_process(folder, trainer.global_rank)
        trainer.callbacks.append(_Release(self))  # type: ignore[attr-defined]
        if finished:
            trainer.datamodule.skip(finished)  # type: ignore[attr-defined]
        self._logger = RunLogger(folder)
        trainer.loggers = [self._logger, *trainer.loggers]

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        # The callbacks after this one write all figures, of earlier parts too, into a file of their own.
        in_first_process(trainer, self._remove_old_events)

    def _remove_old_events(self) -> None:
        for path in self._old_events:
            path.unlink(missing_ok=True)
        self._old_events = []

    def release(self, trainer: Trainer, failed: bool = False) -> None:
        """Give the folder back, and forget which photos are finished.

        Args:
            trainer: of the run.
            failed: whether the run has failed; a new folder of one process in which nothing is finished is then taken
                away.
        """
        if (skip := of_data(trainer, "skip")) is not None:
            skip(())
        trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, _Release)]  # type: ignore[attr-defined]
        if isinstance(self._run, OpenRun) and failed and trainer.world_size == 1:  # others may be writing into it
            if self._logger:
                self._logger.finalize("failed")  # before its file is deleted
            self._run.discard()
        elif isinstance(self._run, OpenRun):
            self._run.close()
        elif self._run:
            self._run.release()
        self._run = None

    def how_to_go_on(self, trainer: Trainer) -> str:
        """How a run that was stopped goes on in its folder: the command, or what a script or a scheduler has to say."""
        folder = self.folder or Path(self.results)
        options = [] if self.run_name else [f"--results={folder.parent}", f"--run_name={folder.name}"]
        options += ["--fresh=false"] if self.fresh else []
        if not self.command:
            return f"RunFolder({str(folder.parent)!r}, {folder.name!r}) goes on"
        if not options:
            return f"the same command goes on: {one_line(self.command)}"
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if trainer.world_size > 1 and environment is not None and environment.creates_processes_externally:
            return f"to go on, start it again with {one_line(options)}"
        return f"to go on: {one_line([*self.command, *options])}"

    def _open(self, trainer: Trainer, module: AttackModule) -> tuple[Path, frozenset[int]]:
        """Open the folder, in the first process; returns it, and the positions of the photos that are finished."""
        title = run_title(module.attack.name, module.source_title)
        place = Place(Path(self.results), title, self.run_name, self.fresh, self.advice)
        digests: Digests | None = of_data(trainer, "digests")
        earlier = partial(self._earlier, trainer, module)
        self._run = open_run(place, self._settings(trainer, module), self.command, digests, earlier)
        self._old_events = event_files(self._run.folder)
        return self._run.folder, self._run.finished

    def _settings(self, trainer: Trainer, module: AttackModule) -> dict[str, Any]:
        return self._with_data(trainer, module.settings())

    def _earlier(self, trainer: Trainer, module: AttackModule) -> list[dict[str, Any]]:
        return [self._with_data(trainer, settings) for settings in module.earlier_settings()]

    def _with_data(self, trainer: Trainer, model: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": model, "trainer": {"precision": trainer.precision}} | self.settings


class _Release(Callback):
    """Gives a run's folder back when all other callbacks are done with it: the last of the list."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        trainer.strategy.barrier("the run's folder is done")
        self.folder.release(trainer)

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        self.folder.release(trainer, failed=True)
