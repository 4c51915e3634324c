"""Where pixels flip: against counts pixel by pixel, and in the files of a run."""

import json
import shlex
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from lightning_attack.metrics.flips import BINS, SIZES, boundary_bins, flip_counts, object_bins
from lightning_attack.runs.commands import note_command, read_commands
from lightning_attack.runs.store import RecordStore
from lightning_attack.runs.summary import Scored, summarize
from tests.runs.kept import write

SHAPE = 45, 100


def label_maps():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, SHAPE)
    blocks = np.kron(rng.integers(0, 4, (3, 4)), np.ones((15, 25), int))
    stripe = np.zeros(SHAPE, int)
    stripe[:, 99] = 1  # distances of up to 98
    diagonal = np.eye(*SHAPE, dtype=int)  # connected at corners only
    for labels in (noise, blocks, stripe, diagonal, np.full(SHAPE, 2), np.full(SHAPE, 255)):
        yield labels
        void = labels.copy()
        void[10:13] = 255
        yield void


def distance_by_hand(labels):
    """To the nearest pixel of another label, less one: by looking at all of them."""
    distances = np.full(labels.shape, np.inf)
    for label in np.unique(labels):
        others = np.argwhere(labels != label)
        for place in np.argwhere(labels == label) if len(others) else ():
            distances[tuple(place)] = np.abs(others - place).max(1).min() - 1
    return distances


def sizes_by_hand(labels):
    """Pixels of the object of each pixel, by flooding it."""
    sizes = np.zeros(labels.shape, int)
    for start in zip(*np.nonzero(labels != 255), strict=True):
        if sizes[start]:
            continue
        found, border = {start}, [start]
        while border:
            y, x = border.pop()
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} - found
            for place in around:
                if all(0 <= p < n for p, n in zip(place, labels.shape, strict=True)) and labels[place] == labels[start]:
                    found.add(place)
                    border.append(place)
        sizes[tuple(zip(*found, strict=True))] = len(found)
    return sizes


@pytest.mark.parametrize("labels", [*label_maps()])
def test_bins_and_counts_by_hand(labels):
    distances, sizes = distance_by_hand(labels), sizes_by_hand(labels) / labels.size
    near = [(0, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, np.inf)]
    inside = np.stack([(low <= distances) & (distances < high) for low, high in near])
    inside[-1] |= np.isinf(distances)
    assert (boundary_bins(labels) == inside.argmax(0)).all()
    of_size = np.stack(
        [(low <= sizes) & (sizes < high) for low, high in [(0, 1e-3), (1e-3, 0.01), (0.01, 0.1), (0.1, 2)]]
    )
    assert (object_bins(labels) == of_size.argmax(0)).all()

    rng = np.random.default_rng(1)
    clean, adversarial = (np.where(rng.random((2, *SHAPE)) < 0.7, labels, 7) for _ in range(2))
    counts = flip_counts(labels, clean, adversarial)
    for target in range(2):
        right = (clean[target] == labels) & (labels != 255)
        flipped = right & (adversarial[target] != labels)
        for kind, places in (("distance", inside), ("size", of_size)):
            expected = [[int((place & state).sum()) for place in places] for state in (right, flipped)]
            assert counts[kind][target].tolist() == expected


def test_a_run_keeps_them_and_its_commands(predict, tmp_path):
    words = ("--data.dataset.init_args.count=3", "--data.dataset.init_args.size=64", "--model.attack.steps=2",
             "--trainer.accelerator=cpu", "--image_logger.count=0", "--run_name=it's mine")  # fmt: skip
    assert predict(*words) == 0
    folder = tmp_path / "results" / "it's mine"
    command = ["python", "main.py", "predict", f"--results={tmp_path / 'results'}", *words]
    assert shlex.split((folder / "command.txt").read_text()) == command

    report = json.loads((folder / "transfer.json").read_text())
    records = list(RecordStore(folder))
    for place, row in enumerate(report["targets"]):
        clean = sum(record.clean.dense()[place] for record in records)
        flips = row["flips"]
        assert flips["images"] == 3
        for kind, bins in BINS.items():
            assert list(flips[kind]["right"]) == list(flips[kind]["flipped"]) == list(bins)
            assert sum(flips[kind]["right"].values()) == np.trace(clean)
        lost = sum(flips["distance"]["flipped"].values())
        assert lost == sum(flips["size"]["flipped"].values())
        # Pixels that became right make up for some of those that became wrong.
        gained = lost - round((row["clean_accuracy"] - row["adversarial_accuracy"]) * clean.sum())
        assert 0 <= gained < clean.sum() - np.trace(clean)
    assert lost > 0

    assert predict(*words, "--model.seed=1") == 2  # other settings: refused, and no start of this run
    assert predict(*words, "--data.batch_size=1") == 0
    first, second = (folder / "command.txt").read_text().splitlines()
    assert shlex.split(second) == [*shlex.split(first), "--data.batch_size=1"]

    # A record of an older version, and a target that could not be scored: both do without.
    write(folder, replace(records[0], flips={}))
    records[0] = next(iter(RecordStore(folder)))
    assert records[0].flips == {}
    name = report["targets"][1]["target"]
    records[1] = replace(records[1], failed={name: "no memory"})
    white_box = {row["target"]: row["white_box"] for row in report["targets"]}
    scored = Scored("a", "s", white_box, tuple(report["targets"][0]["clean_iou"]), ("all",))
    _, again = summarize(records, scored)
    assert [row["flips"]["images"] for row in again["targets"]] == [2, 1, 2]
    kept = records[2].flips["size"][1]
    assert again["targets"][1]["flips"]["size"]["flipped"] == dict(zip(SIZES, kept[1].tolist(), strict=True))
    _, none = summarize([replace(record, flips={}) for record in records], scored)
    assert "flips" not in none["targets"][0]


def test_a_command_with_lines_in_a_word_is_one_line_for_bash(tmp_path):
    words = ["printf", "%s|", "a:\n  'b' \\n\r", "it's", "\u2028", ""]
    note_command(tmp_path, words)
    note_command(tmp_path, words)
    first, second = read_commands(tmp_path)
    assert first == second
    assert subprocess.run(["bash", "-c", first], capture_output=True).stdout.decode() == "|".join(words[2:]) + "|"
