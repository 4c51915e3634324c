"""Locks of a run's folder, held by real processes."""

import errno
import os
import signal
import subprocess
import sys
import time

import filelock
import pytest

from lightning_attack.runs import RunError, lock
from lightning_attack.runs.lock import lock_folder, lock_process


@pytest.fixture
def elsewhere(tmp_path):
    """Call a function of `lock` in another process, which then waits; it is killed after the test."""
    started = []

    def elsewhere(call, sleep=60.0):
        code = (
            "import sys, time; from pathlib import Path; from lightning_attack.runs.lock import *; "
            f"held = {call}(Path({str(tmp_path)!r}), *map(int, sys.argv[1:])); print('held', flush=True); "
            f"time.sleep({sleep})"
        )
        ranks = ["1"] if call == "lock_process" else []
        started.append(subprocess.Popen([sys.executable, "-c", code, *ranks], stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield elsewhere
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_in_use_is_refused_with_its_process_and_one_of_the_dead_is_not(tmp_path, elsewhere):
    process = elsewhere("lock_folder")
    said = rf"in use by another run \(pid {process.pid} on .+\); wait for it or stop it"
    with pytest.raises(RunError, match=said):
        lock_folder(tmp_path)
    with pytest.raises(RunError, match=said):  # asking has not told the holder's name away
        lock_folder(tmp_path)
    process.kill()
    process.wait()
    held = lock_folder(tmp_path)
    assert (tmp_path / ".lock.holder").read_text().startswith(f"pid {os.getpid()} on ")
    held.release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_second_lock_in_the_same_process_is_refused(tmp_path):
    held = lock_folder(tmp_path)
    with pytest.raises(RunError, match="in use"):
        lock_folder(tmp_path)
    held.release()
    lock_folder(tmp_path).release()


def test_a_holder_on_another_machine_is_taken_to_be_alive(tmp_path):
    held = lock_folder(tmp_path)
    (tmp_path / ".lock.holder").write_text("pid 12 on nowhere")
    with pytest.raises(RunError, match=r"in use by another run \(pid 12 on nowhere\); wait for it or stop it"):
        lock_folder(tmp_path)
    held.release()


def test_processes_of_an_earlier_run_are_waited_for(tmp_path, elsewhere, monkeypatch):
    elsewhere("lock_process", sleep=1.5)
    begin = time.monotonic()
    lock_folder(tmp_path).release()
    assert time.monotonic() - begin > 0.5
    elsewhere("lock_process")
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    with pytest.raises(RunError, match=r"processes of an earlier run in .* are still alive; stop them"):
        lock_folder(tmp_path)
    with pytest.raises(RunError, match="another process of rank 1"):
        lock_process(tmp_path, 1)
    with pytest.raises(RunError, match="still alive"):  # the folder's own lock was given back
        lock_folder(tmp_path)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_neither_keeps_a_lock_nor_gives_it_back(tmp_path, elsewhere):
    held = lock_folder(tmp_path)
    children = []
    for seconds in (0, 60):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(seconds)
            os._exit(0)
    os.waitpid(children[0], 0)
    with pytest.raises(RunError, match="in use"):
        lock_folder(tmp_path)
    held.release()
    try:
        elsewhere("lock_folder")
    finally:
        os.kill(children[1], signal.SIGKILL)
        os.waitpid(children[1], 0)


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match=r"this file system has no locks \(.*No locks available\); see to it that no"):
        held = lock_folder(tmp_path)
    held.release()
    lock_process(tmp_path, 1).release()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        lock_folder(tmp_path / "gone")


WINDOWS = """
import signal, sys
import torch, lightning.pytorch, filelock  # of others; what they need is there
sys.modules["fcntl"] = None
for name in ("SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
from lightning_attack.callbacks import GracefulStop, RunFolder, graceful_stop
from lightning_attack.runs import lock, opening
assert graceful_stop.SIGNALS == (signal.SIGTERM, signal.SIGINT)
"""


def test_modules_import_without_what_only_unix_has():
    done = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
