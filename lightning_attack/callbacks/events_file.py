"""`EventsWriter`: TensorBoard's writer on a file that stays open."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from lightning_attack.runs.names import event_path

FLUSH_SECONDS = 30.0
"""Age of the last flush from which the next event is followed by one; a killed process loses what came since."""


class EventsFile:
    """A file of events, opened once.

    TensorBoard's own writer opens its file anew for each event, seven times for each image of a run; on a shared file
    system each is a question to its server.

    Args:
        folder: where the file is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._lock, self._flushed = folder, Lock(), time.monotonic()
        self._records = RecordWriter(event_path(folder).open("xb"))
        source = SourceMetadata(writer="lightning_attack")
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=source))
        self.flush()

    def get_logdir(self) -> str:
        """The folder."""
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        """Append an event."""
        with self._lock:
            self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand all events to the system."""
        with self._lock:
            self._records.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and close the file."""
        with self._lock:
            self._records.close()


class _FileWriter(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = EventsFile(folder)  # in place of what the base class would make


class EventsWriter(SummaryWriter):  # type: ignore[no-untyped-call]
    """torch's `SummaryWriter` with an `EventsFile`."""

    def _get_file_writer(self) -> FileWriter:
        known: FileWriter | None = self.file_writer
        if known is None:  # at first, and where something is logged after `close`
            known = _FileWriter(Path(self.log_dir))
            self.file_writer, self.all_writers = known, {known.get_logdir(): known}  # type: ignore[assignment]
        return known
