"""`AttackProgress` in a log file."""

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import (
    AttackProgress,
)
from tests.callbacks.small_runs import run


def test_progress_without_a_terminal_is_lines(tmp_path, capsys):
    run(tmp_path, NoAttack(), callbacks=[AttackProgress(every=0)], bar=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attacked")]
    assert lines == [f"attacked batch {number} of 3" for number in (1, 2, 3)]
