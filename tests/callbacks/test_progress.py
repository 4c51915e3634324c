"""`AttackProgress` in a log file."""

import re
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.callbacks import (
    AttackProgress,
    RunFolder,
    TransferMetrics,
)
from lightning_attack.callbacks.pace import photos_for_one, photos_of_run
from lightning_attack.data.scenes import Share
from tests.callbacks.small_runs import model, run
from tests.runs.kept import drop


class Clock:
    """A clock that moves `step` seconds whenever somebody looks at it."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def lines_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def test_progress_without_a_terminal_is_lines(tmp_path, capsys):
    run(
        tmp_path,
        NoAttack(),
        {"other": model(1)},
        callbacks=[AttackProgress(every=0), RunFolder(str(tmp_path))],
        bar=True,
    )
    first, *lines = lines_of(capsys)
    assert first == (
        "no_attack attacks source, targets: other; 5 photos in batches of 2 on cpu; "
        f"folder: {tmp_path / 'no_attack_source' / 'version_0'}"
    )
    counts = [line for line in lines if "; now:" not in line]
    assert [line.split(",")[0] for line in counts] == [f"{number} of 5 photos" for number in (2, 4, 5)]
    assert re.fullmatch(r"4 of 5 photos, [\d.]+ photos/s, about 0\.\d s left", counts[1])
    assert any(line.endswith("; now: scoring other") for line in lines)


def test_a_line_comes_every_so_many_seconds_also_within_a_batch(tmp_path, capsys, monkeypatch):
    """Each look at the clock takes ten seconds; every status and every end of a batch is a look or two."""
    monkeypatch.setattr(AttackProgress, "clock", Clock(10))
    run(tmp_path, pgd(eps=1.5, norm="l2", steps=9), callbacks=[AttackProgress()], bar=True)
    first, *lines = lines_of(capsys)
    assert first.startswith("pgd (eps 1.5 in L2) attacks source; 5 photos")
    assert lines[0] == "0 of 5 photos; now: pgd step 3"
    assert any(re.fullmatch(r"2 of 5 photos, [\d.]+ s per photo, about [\w ]+ left; now: pgd step \d", line)
               for line in lines)  # fmt: skip
    assert len(lines) < 3 * 12


@pytest.mark.parametrize("left", [0, 2])
def test_a_run_that_goes_on_says_how_many_are_done(left, tmp_path, capsys):
    def part():
        folder = RunFolder(str(tmp_path), "run")
        run(tmp_path, NoAttack(), callbacks=[AttackProgress(every=0), folder, TransferMetrics(table=False)], bar=True)
        return lines_of(capsys)

    part()
    drop(tmp_path / "run", *range(left))
    _, second, *lines = part()
    assert second == ("3 of 5 photos are done, going on" if left else "5 of 5 photos are done, all of them")
    assert [line for line in lines if line.startswith("5 of 5 photos")] == lines[-1:] if left else not lines


@pytest.mark.parametrize(("rank", "own"), [(0, 1), (1, 4)])
@pytest.mark.parametrize("limit", [None, 1])
def test_processes_with_unequal_shares_know_the_photos_of_all(rank, own, limit):
    """The first has one large photo, the other the rest; the trainer may attack less of them."""
    share = Share(range(5), costs=[9, 2, 2, 2, 2], num_replicas=2, rank=rank, shuffle=False)
    datamodule = SimpleNamespace(indices=lambda: range(7), finished=frozenset({5, 6}))
    trainer = SimpleNamespace(predict_dataloaders=DataLoader(range(5), sampler=share), world_size=2,
                              num_predict_batches=[limit or own], datamodule=datamodule)  # fmt: skip
    expected = 5 if own == 1 or limit is None else 2
    assert photos_of_run(trainer) == (2 + expected, 2)
    assert photos_for_one(trainer) * (limit or own) == expected
