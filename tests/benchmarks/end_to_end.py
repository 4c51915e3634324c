"""How much faster two processes are than one, and what a run costs beside its attack: whole `predict` runs.

    python tests/benchmarks/end_to_end.py -c tests/configs/shared_voc.yaml --limit 16 --json speed.json

Each process has one thread, as on a machine that gives each its own core. One and two processes take turns; figures are
medians over the rounds, and ratios of times of one round. `run` is the time from the first photo to the table,
`command` that of the whole command with its start. `overhead` is what a run takes beyond its attack and scoring:
reading, counting, writing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(processes: int, config: Path | None, words: list[str], results: Path) -> dict[str, float]:
    """Times of one run in seconds."""
    files = [] if config is None else ["-c", str(config)]
    several = ["--trainer.strategy=ddp"] if processes > 1 else []
    command = [sys.executable, "main.py", "predict", *files, *words, f"--results={results}", "--run_name=run",
               f"--trainer.devices={processes}", *several, "--trainer.accelerator=cpu",
               "--trainer.enable_progress_bar=false"]  # fmt: skip
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    report = json.loads((results / "run" / "transfer.json").read_text())
    seconds = report["seconds"]
    return {
        "command": time.perf_counter() - start,
        "run": seconds["run"],
        "attack": seconds["attack"] / processes,
        "steps": (seconds["attack"] + seconds["scoring"]) / processes,
        "images": report["images"],
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, help="configuration of the run; none = the default run")
    parser.add_argument("--limit", type=int, default=16, help="number of photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    known, more = parser.parse_known_args(words)
    rounds = []
    for _ in range(known.rounds):
        times = {}
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                small = [f"--data.limit={known.limit}", "--data.batch_size=1", *more]
                times[processes] = run(processes, known.config, small, Path(folder))
        rounds.append(times)
    rows = []
    for processes in (1, 2):

        def median(of, processes=processes):
            return statistics.median(of(times[processes], times[1]) for times in rounds)

        rows.append({
            "processes": processes,
            "images_per_second": median(lambda mine, one: mine["images"] / mine["run"]),
            "speedup_of_run": median(lambda mine, one: one["run"] / mine["run"]),
            "speedup_of_command": median(lambda mine, one: one["command"] / mine["command"]),
            "attack_share_of_run": median(lambda mine, one: mine["attack"] / mine["run"]),
            "overhead": median(lambda mine, one: mine["run"] / mine["steps"] - 1),
        })  # fmt: skip
    for row in rows:
        print("  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    if known.json:
        known.json.write_text(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
