"""What the first process of a run does alone, the others learn: its result, or why there is none."""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest

import lightning_attack
from lightning_attack.common.errors import UserError
from lightning_attack.common.first_process import in_first_process

PACKAGE = Path(lightning_attack.__file__).parent


class TwoArgumentsError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, file, line):
        super().__init__(f"{file}:{line}")


def processes(count):
    """Trainers in threads, whose broadcasts meet and are copied as between processes."""
    meeting, sent = Barrier(count, timeout=10), []

    def broadcast(first):
        def send(content):
            if first:
                sent.append(pickle.dumps(content))
            meeting.wait()
            return pickle.loads(sent[-1])

        return send

    return [
        SimpleNamespace(is_global_zero=rank == 0, strategy=SimpleNamespace(broadcast=broadcast(rank == 0)))
        for rank in range(count)
    ]


def in_all(work, count=3):
    def ask(trainer):
        try:
            return in_first_process(trainer, work)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, processes(count)))


def test_all_get_the_result_of_one_call():
    calls = []
    assert in_all(lambda: calls.append(1) or [2.5, None]) == [[2.5, None]] * 3
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "others"),
    [
        (UserError("no file 'a'\ngive another"), "no file 'a'\ngive another"),
        (FileNotFoundError(2, "No such file", "a.png"), "[Errno 2] No such file: 'a.png'"),
        (TwoArgumentsError("a.py", 3), "TwoArgumentsError: a.py:3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_stop_with_the_same_words(error, others):
    def work():
        raise error

    first, *rest = in_all(work)
    assert first is error
    assert [str(one) for one in rest] == [others] * 2


def test_nothing_else_broadcasts():
    """The package has no broadcast of its own, in which processes would wait for a first one that has failed."""
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if ".broadcast(" in path.read_text()}
    assert found == {"common/first_process.py"}


def test_no_hook_leaves_work_to_the_first_process_alone_at_the_end():
    """`if not trainer.is_global_zero: return` in `setup` or `teardown`: the others would wait in the next barrier."""
    hook = re.compile(r"    def (?:setup|teardown|on_fit_end)\(.*?(?=\n    def |\nclass |\Z)", re.DOTALL)
    found = [
        path.name
        for path in PACKAGE.rglob("*.py")
        for body in hook.findall(path.read_text())
        if re.search(r"^ +if (?:not )?(?:self\.)?trainer\.is_global_zero", body, re.MULTILINE)
    ]
    assert found == ["run_folder.py"], "which takes a lock in the others"
