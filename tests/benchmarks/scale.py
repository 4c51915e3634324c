"""How the time, memory, files and bytes of runs and reports grow: with photos, classes, targets and runs.

    python tests/benchmarks/scale.py --photos=2000 --classes=150 --targets=6 --runs=20
    python tests/benchmarks/scale.py --quick

No network is run: the records of runs are made up, as an attack would leave them (in each photo a few of the classes
occur). A line is one setting; without one of one's own, each of the four sizes is doubled twice while the others stay.

    write    writing a run's records                   files, kB/photo   what they take in one run
    count    a look at how many images are done        end               from the records to the summary of a run
    report   the command `report` over all runs        page              the size of report.html

Seconds of the wall clock; MB: the highest memory of a process that does this alone. `end` is of one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning_attack.metrics.flips import BINS
from lightning_attack.metrics.iou import class_counts
from lightning_attack.runs.records import Record, Sparse
from lightning_attack.runs.segments import SegmentWriter
from lightning_attack.runs.store import RecordStore, count_records
from lightning_attack.runs.summary import Scored, Totals

SIZES = {"photos": 100, "classes": 20, "targets": 3, "runs": 2}
PIXELS, OCCUR, STEPS = 512 * 512, 8, 20
COLUMNS = ("write", "files", "kB/photo", "count", "end", "end MB", "report", "report MB", "page MB")
WIDTH = max(map(len, (*SIZES, *COLUMNS))) + 2


def made_record(index: int, classes: int, targets: int, seed: int) -> Record:
    """The record of an image that shows `OCCUR` of the classes; the clean predictions are the same for each seed."""
    clean_of, attacked_of = np.random.default_rng(index), np.random.default_rng((index, seed))
    own = clean_of.choice(classes, min(OCCUR, classes), replace=False)
    seen = np.union1d(own, clean_of.choice(classes, min(4, classes), replace=False))
    places = np.searchsorted(seen, own)
    share = clean_of.dirichlet(np.ones(len(own)))
    confusion = np.zeros((targets, 1, 2, len(seen), len(seen)), np.int64)
    for number in range(targets):
        for which, (generator, right) in enumerate(((clean_of, 0.8), (attacked_of, 0.8 - 0.1 * (seed % 5)))):
            for place, part in zip(places, share, strict=True):
                errors = generator.dirichlet(np.full(len(seen), 0.3)) * (1 - right)
                pixels = int(part * PIXELS)
                confusion[number, 0, which, place] = errors * pixels
                confusion[number, 0, which, place, place] += pixels - confusion[number, 0, which, place].sum()
    counts = np.zeros((targets, 1, 2, 3, classes), np.int64)
    counts[..., seen] = class_counts(confusion)
    clean = np.zeros((targets, classes, classes), np.int64)
    clean[:, seen[:, None], seen] = confusion[:, 0, 0]
    flips = {kind: clean_of.integers(0, 9999, (targets, 2, len(bins))) for kind, bins in BINS.items()}
    return Record(
        index, f"photo_{index:08d}", counts, Sparse.of(clean), {"linf": 8.0, "l2": 20.0, "psnr": 33.0},
        {"forward": 1 + STEPS, "backward": STEPS}, 0.1, digest=f"{index:032x}", flips=flips,
        figures={name: attacked_of.random(STEPS) for name in ("loss", "p_t", "p_h")},
    )  # fmt: skip


def scored(classes: int, targets: int, attack: str = "pgd") -> Scored:
    names = {f"net_{number}": number == 0 for number in range(targets)}
    return Scored(attack, "net_0", names, tuple(f"class {number}" for number in range(classes)), ("all",))


def write_run(folder: Path, photos: int, classes: int, targets: int, seed: int) -> float:
    """A finished run without any network; the seconds that its records took to be written."""
    (folder / "records").mkdir(parents=True)
    writer, seconds, totals = SegmentWriter(folder, 0), 0.0, Totals(scored(classes, targets, f"attack_{seed}"))
    for index in range(photos):
        record = made_record(index, classes, targets, seed)
        totals.add(record)
        started = time.perf_counter()
        writer.append(record)
        seconds += time.perf_counter() - started
    writer.close()
    _, summary = totals.summary()
    attack = {"class": "IterativeAttack", "name": f"attack_{seed}", "norm": {"class": "Linf", "eps": 8 / 255}}
    summary["settings"] = {"attack": attack | {"steps": STEPS}, "quantize": True, "seed": 0}
    (folder / "transfer.json").write_text(json.dumps(summary))
    model = {"targets": {f"net_{number}": f"hash {number}" for number in range(targets)}, "windows": None}
    (folder / "settings.json").write_text(json.dumps({"model": model, "trainer": {"precision": "32-true"}}))
    return seconds


def end(folder: Path, classes: int, targets: int) -> None:
    totals = Totals(scored(classes, targets))
    for record in RecordStore(folder):
        totals.add(record)
    totals.summary()


def alone(*words: object) -> tuple[float, float]:
    """Seconds and MB of a part of this file in a process of its own, without what it takes to import things."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)],
                          check=True, capture_output=True, text=True)  # fmt: skip
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def part(words: list[str]) -> None:
    """What `alone` starts: the end of a run, or a report."""
    what, folder, *sizes = words
    started = time.perf_counter()
    if what == "end":
        end(Path(folder), *map(int, sizes))
    else:
        from lightning_attack.cli.main import main

        assert main(["report", folder, f"--output={folder}.report"]) == 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{time.perf_counter() - started} {memory}")


def measure(sizes: dict[str, int]) -> list[float]:
    photos, classes, targets, runs = (sizes[name] for name in SIZES)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        seconds = [write_run(folder / f"run_{seed}", photos, classes, targets, seed) for seed in range(runs)]
        files = [path for path in (folder / "run_0" / "records").iterdir()]
        size = sum(path.stat().st_size for path in files)
        started = time.perf_counter()
        assert count_records(folder / "run_0") == photos
        count = time.perf_counter() - started
        ended, reported = alone("end", folder / "run_0", classes, targets), alone("report", folder)
        page = (Path(place) / "study.report" / "report.html").stat().st_size / 1e6
        return [seconds[0], len(files), size / photos / 1e3, count, *ended, *reported, page]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, each doubled once: below a minute")
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int)
    given = vars(parser.parse_args(words))
    quick, own = given.pop("quick"), {name: size for name, size in given.items() if size}
    start = (SIZES | {"photos": 48} if quick else SIZES) | own
    several = [start] if own else [
        start, *(start | {name: factor * start[name]} for name in SIZES for factor in ((2,) if quick else (2, 4)))
    ]  # fmt: skip
    print("".join(f"{name:>{WIDTH}}" for name in (*SIZES, *COLUMNS)))
    for sizes in several:
        values = "".join(f"{value:{WIDTH}.2f}" for value in measure(sizes))
        print("".join(f"{size:{WIDTH}d}" for size in sizes.values()) + values, flush=True)


if __name__ == "__main__":
    part(sys.argv[1:]) if sys.argv[1:2] in (["end"], ["report"]) else main()
