"""How fast a step of an attack is, against plain loops: ratios of medians, all taken in turns on the same machine.

    python tests/benchmarks/speed.py [--quick] [--json FILE]

Columns: the speedup over a plain `autograd.grad` loop, over one with `.backward()`, and over torchattacks; the least
time that convolutions forward and back can take at the machine's measured peak, over the time taken; the memory that a
step adds; the shares of network, loss and the rest in the step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.nn.functional as F

from tests.benchmarks.networks import NETWORKS
from tests.benchmarks.steps import work
from tests.precisions import PRECISIONS
from tests.processes import clean_processes

PLAIN = "naive", "backward"
PARTS = ("network", "loss", "rest")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: under a minute on two idle cores")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args(words)
    plain = PLAIN
    if importlib.util.find_spec("torchattacks") and not options.quick:
        plain = (*PLAIN, "torchattacks")
    context, threads = clean_processes(), torch.get_num_threads()
    workers: dict[str, Connection] = {}
    ends = []
    for ways in (plain, PRECISIONS):
        here, there = context.Pipe()
        context.Process(target=work, args=(there, ways, threads), daemon=True).start()
        ends.append(here)
        workers |= dict.fromkeys(ways, here)
    rows = []
    for name in options.networks:
        for end in ends:
            ask(end, f"build {name}")
        rows += measured(name, workers, options.quick)
    for end in ends:
        end.send("")
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def ask(worker: Connection, message: str) -> Any:
    """Send a message and wait for the answer."""
    worker.send(message)
    return worker.recv()


def measured(name: str, workers: dict[str, Connection], quick: bool) -> list[dict[str, Any]]:
    """The rows of a network: each round takes one step in every way, in turns."""
    seconds: dict[str, list[float]] = {way: [] for way in workers}
    shares: dict[str, list[dict[str, float]]] = {way: [] for way in workers}
    peaks: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(2 if quick else 7):
        for way, worker in workers.items():
            took, parts = ask(worker, f"step {way}")
            seconds[way].append(took)
            shares[way].append(parts)
        for precision, peak in peaks.items():
            peak.append(convolution_peak(getattr(torch, precision.replace("bf16", "bfloat16"))))
    operations = 2 * ask(workers["naive"], "count naive")  # forward and gradient of the images
    batch, height, width = NETWORKS[name][2]
    # A tenth of a quick run for a figure that hardly changes.
    naive_memory = None if quick else ask(workers["naive"], "memory naive")
    rows = []
    for precision in PRECISIONS:
        over = {way: median(a / b for a, b in zip(seconds[way], seconds[precision], strict=True)) for way in workers}
        times = [sum(parts[part] for parts in shares[precision]) for part in PARTS]
        rows.append({
            "network": name, "size": f"{batch}x{height}x{width}", "precision": precision, "engine": "fused",
            "speedup_over_naive": over["naive"], "speedup_over_backward": over["backward"],
            "speedup_over_torchattacks": over.get("torchattacks"),
            "fraction_of_floor": operations / max(peaks[precision]) / median(seconds[precision]),
            "peak_memory_mb": ask(workers[precision], f"memory {precision}"),
            "naive_memory_mb": naive_memory,
            **{f"{part}_share": took / sum(times) for part, took in zip(PARTS, times, strict=True)},
        })  # fmt: skip
    return rows


def convolution_peak(dtype: torch.dtype) -> float:
    """Operations per second of a large 3x3 convolution, which runs at the machine's peak."""
    images = torch.randn(1, 256, 64, 64).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    took = []
    with torch.no_grad():
        for _ in range(4):
            begin = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            took.append(time.perf_counter() - begin)
    return 2.0 * images.numel() * weight[0].numel() / min(took)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    columns = ["network", "size", "precision", "naive", "backward", "torchattacks", "floor", "MB", "naive MB", "shares"]
    print("  ".join(f"{column:>12}" for column in columns))
    for row in rows:
        values = [row["network"], row["size"], row["precision"]]
        ratios = ("speedup_over_naive", "speedup_over_backward", "speedup_over_torchattacks", "fraction_of_floor")
        values += ["-" if row[key] is None else f"{row[key]:.2f}" for key in ratios]
        values += ["-" if row[key] is None else f"{row[key]:.0f}" for key in ("peak_memory_mb", "naive_memory_mb")]
        values.append("/".join(f"{row[f'{part}_share']:.0%}" for part in PARTS))
        print("  ".join(f"{value:>12}" for value in values))


if __name__ == "__main__":
    main()
