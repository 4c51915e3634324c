"""What a run asks of the file system for each image: on NFS and Lustre every operation is a message to a server."""

import os
import sys
from collections import Counter

import pytest

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import ImageShards, ImageWriter, Overview, RunFolder, TransferMetrics
from lightning_attack.data import SyntheticScenes
from tests.callbacks.small_runs import run

KINDS = {"png": ImageWriter, "shards": ImageShards, "none": None}
WATCHED = {"open": "open", "os.rename": "rename", "os.mkdir": "make", "os.remove": "remove",
           "os.scandir": "list", "os.listdir": "list"}  # fmt: skip
counted: list[tuple[str, Counter]] = []
"""The folder that is watched at the moment, and what has happened in it."""


def note(event, arguments):
    """Python calls this for every file that is opened, renamed, ...; an audit hook stays for the process' life."""
    if counted and event in WATCHED and isinstance(arguments[0], str | os.PathLike):
        folder, found = counted[-1]
        found[WATCHED[event]] += os.fspath(arguments[0]).startswith(folder)


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(note)


@pytest.fixture
def operations(tmp_path, monkeypatch):
    """Count operations below `tmp_path` of a run of so many photos."""

    def look(path, *arguments, real=os.stat, **settings):
        if counted and isinstance(path, str | os.PathLike):
            counted[-1][1]["look"] += os.fspath(path).startswith(counted[-1][0])
        return real(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", look)

    def operations(kind, photos):
        folder = tmp_path / f"{kind}_{photos}"
        writer = [KINDS[kind]()] if KINDS[kind] else []
        callbacks = [RunFolder(str(folder), "run"), *writer, TransferMetrics(table=False), Overview("a b")]
        counted.append((str(folder), Counter()))
        run(folder, NoAttack(), dataset=SyntheticScenes(photos, size=16), callbacks=callbacks)
        return counted.pop()[1]

    return operations


@pytest.mark.parametrize(("kind", "expected"), [
    ("png", {"open": 1, "rename": 1, "look": 2}), ("shards", {}), ("none", {}),
])  # fmt: skip
def test_operations_for_each_image(kind, expected, operations):
    few, many = operations(kind, 2), operations(kind, 12)
    each = {what: round((many[what] - few[what]) / 10) for what in many}  # two or three more for a whole run are none
    assert {what: count for what, count in each.items() if count} == expected
