"""How evenly the processes of a run share photos of unlike sizes: a whole `predict` run of real processes.

    python tests/benchmarks/balance.py --processes=4 --photos=48 --model.attack.steps=3

Photos of random sizes, of which the largest has up to sixteen times the pixels of the smallest, are attacked one by
one at their own sizes. For each process the table has the photos that it attacked, their work (pixels x passes of the
source), and the CPU time that it took for all but the first. `left` is how many of its photos were not done yet when
the first process ended: if each did the same work in the same time; by the CPU time of each; and by the clock, which
depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning_attack.runs.names import segment_files
from lightning_attack.runs.records import unpack
from lightning_attack.runs.segments import Frame, frames, record_at

ROOT = Path(__file__).parents[2]


def make_photos(folder: Path, count: int, smallest: int, seed: int = 0) -> None:
    """Photos whose sides are one to four times the smallest, each of them as often as its double."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        height, width = (smallest * np.exp2(2 * generator.random(2))).astype(int)
        photo = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(photo).save(folder / f"{number:04d}.png")


def done_by_each(folder: Path) -> list[list[tuple[int, int]]]:
    """For each process of a run, in the order of its records, the place of a photo and its work: pixels x passes."""
    shares = []
    for path in segment_files(folder):
        with path.open("rb") as file:
            records = [unpack(record_at(file, one) or b"") for one in frames(path) if isinstance(one, Frame)]
        shares.append([
            (one.index, int(one.counts[0, 0, 0, 1].sum() * sum(one.passes.values()))) for one in records
        ])  # fmt: skip
    return shares


def left_when_the_first_ends(ends: Sequence[Sequence[float]]) -> list[int]:
    """How many photos of each process end after the last one of the process that is done first.

    Example:
        >>> left_when_the_first_ends([[1, 2, 3], [2, 4, 6]])
        [0, 2]
    """
    first = min(own[-1] for own in ends)
    return [sum(end > first for end in own) for own in ends]


def ends_by_work(shares: Sequence[Sequence[tuple[int, int]]]) -> list[list[float]]:
    """After how much work of its process each photo is done."""
    return [np.cumsum([work for _, work in own]).tolist() for own in shares]


class Clocks:
    """When photos are done, by the CPU time of their process, and by the clock of all."""

    def __init__(self, processes: int) -> None:
        self.cpu: list[list[float]] = [[] for _ in range(processes)]
        self.wall: list[list[float]] = [[] for _ in range(processes)]

    def watch(self, process: subprocess.Popen[str], folder: Path) -> None:
        """Look at the records of a run until it is done."""
        while process.poll() is None:
            for path in segment_files(folder):
                rank = int(path.stem.partition("_")[0])
                new = sum(isinstance(one, Frame) for one in frames(path)) - len(self.wall[rank])
                if new:
                    self.wall[rank] += [time.perf_counter()] * new
                    self.cpu[rank] += [cpu_seconds(process.pid, rank)] * new
            time.sleep(0.02)


def cpu_seconds(first: int, rank: int) -> float:
    """CPU time of a process of a run, which the first one may have started."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    for pid in [str(first)] if rank == 0 else children:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if rank == 0 or f"LOCAL_RANK={rank}".encode() in variables:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--smallest", type=int, default=64, help="pixels of the shortest side there may be")
    known, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        photos, run = Path(place, "photos"), Path(place, "results", "run")
        photos.mkdir()
        make_photos(photos, known.photos, known.smallest)
        command = [sys.executable, "main.py", "predict", "--data.dataset=ImageFolder", f"--data.dataset.root={photos}",
                   "--data.size=null", "--data.batch_size=1", f"--trainer.devices={known.processes}",
                   "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
                   "--images=none", f"--results={run.parent}", "--run_name=run", *more]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True)
        clocks = Clocks(known.processes)
        clocks.watch(process, run)
        if process.returncode:
            raise SystemExit(process.returncode)
        shares = done_by_each(run)
    # The first photos are about as large as each other; before them processes start, in times of their own.
    spent = [[seconds - own[0] for seconds in own] for own in clocks.cpu]
    columns = [left_when_the_first_ends(ends) for ends in (ends_by_work(shares), spent, clocks.wall)]
    mean = sum(work for own in shares for _, work in own) / len(shares)
    print("process  photos  work, 1e6  of the mean  CPU, s  left by work  by CPU time  by the clock")
    for rank, own in enumerate(shares):
        work = sum(work for _, work in own)
        left = "".join(f"{column[rank]:{width}}" for column, width in zip(columns, (14, 13, 14), strict=True))
        print(f"{rank:7}{len(own):8}{work / 1e6:11.2f}{work / mean:13.3f}{spent[rank][-1]:8.2f}{left}")


if __name__ == "__main__":
    main()
