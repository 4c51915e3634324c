"""How much memory attacks add to the process at their peak, in MB, beside that of one step of a plain loop.

    python tests/benchmarks/memory.py [--json FILE]

Each is measured in a process of its own, after a first run that makes what is made only once; the most of some runs
is taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning_attack.attacks import Attack, pgd, transegpgd, vmi_fgsm
from lightning_attack.models.acceleration import FastNetworks
from tests.benchmarks.networks import NETWORKS, build
from tests.benchmarks.steps import added_memory, naive
from tests.precisions import PRECISIONS
from tests.processes import clean_processes

ATTACKS: dict[str, partial[Attack]] = {
    "pgd": partial(pgd, steps=2), "vmi_fgsm": partial(vmi_fgsm, steps=1, samples=20),
    "transegpgd": partial(transegpgd, steps=2),
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="deeplabv3plus-resnet50")
    parser.add_argument("--size", type=int, nargs=3, default=(1, 512, 1024), help="of the batch: images, height, width")
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args(words)
    work = [("plain loop", "float32"), *((name, one) for name in options.attacks for one in options.precisions)]
    rows = []
    with clean_processes().Pool(1, maxtasksperchild=1) as pool:
        for attack, precision in work:
            arguments = attack, precision, options.network, options.size, options.repeats
            rows.append({
                "attack": attack, "precision": precision, "peak_memory_mb": pool.apply(measured, arguments)
            })  # fmt: skip
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2))


def measured(attack: str, precision: str, name: str, size: Sequence[int], repeats: int) -> int | None:
    """MB of an attack, or of a plain loop; None where the system does not say."""
    network, images, labels = build(name, tuple(size))
    if attack not in ATTACKS:
        run = partial(naive, network.requires_grad_(True), images, labels, images)
        return _most(run, repeats)
    run = partial(ATTACKS[attack](), network, images, labels, [0] * len(images))
    with FastNetworks([network], "fused", precision).attacking():
        return _most(run, repeats)


def _most(run: partial[object], repeats: int) -> int | None:
    run()
    found = [added_memory(run) for _ in range(repeats)]
    return None if None in found else round(max(found))


if __name__ == "__main__":
    main()
