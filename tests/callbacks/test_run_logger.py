"""TensorBoard's events of a run: the file is opened once, and what is flushed can be read."""

import sys

import pytest

from lightning_attack.callbacks import events_file
from lightning_attack.callbacks.run_logger import RunLogger
from tests.callbacks.small_runs import events

OPENED: list[str] | None = None


def note(event, arguments):
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened during a test; a hook of the interpreter cannot be taken away again."""
    if not hasattr(note, "hooked"):
        sys.addaudithook(note)
        note.hooked = True
    monkeypatch.setattr(sys.modules[__name__], "OPENED", [])
    return OPENED


def steps(folder, tag):
    return [event.step for event in events(folder).Scalars(tag)]


def test_events_are_written_to_one_file_that_is_opened_once(tmp_path, opened):
    logger = RunLogger(tmp_path / "mine")
    for step in range(50):
        logger.log_metrics({"a": step / 2}, step)
    logger.finalize("success")
    assert [name for name in opened if "tfevents" in name] == [str(*(tmp_path / "mine").glob("events.*"))]
    assert [(event.step, event.value) for event in events(tmp_path / "mine").Scalars("a")] == [
        (step, step / 2) for step in range(50)
    ]


def test_a_killed_process_loses_at_most_what_came_since_the_last_flush(tmp_path, monkeypatch):
    logger = RunLogger(tmp_path / "mine")
    logger.log_metrics({"a": 1.0}, 0)
    logger.experiment.flush()
    logger.log_metrics({"a": 1.0}, 1)  # not flushed yet: too soon
    assert steps(tmp_path / "mine", "a") == [0]
    monkeypatch.setattr(events_file, "FLUSH_SECONDS", 0.0)
    logger.log_metrics({"a": 1.0}, 2)
    assert steps(tmp_path / "mine", "a") == [0, 1, 2]


def test_what_is_logged_after_the_end_goes_into_another_file(tmp_path):
    logger = RunLogger(tmp_path / "mine")
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")
    assert len([*(tmp_path / "mine").glob("events.*")]) == 2
    assert steps(tmp_path / "mine", "a") == [0, 1]
