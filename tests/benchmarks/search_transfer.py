"""Search for the strongest transfer at equal cost: candidates on several sources, scored on networks of other families.

    python tests/benchmarks/search_transfer.py run results/search --candidates recipe flip --photos 24
    python tests/benchmarks/search_transfer.py show results/search --against recipe@10
    python tests/benchmarks/search_transfer.py effects results/search

`run` attacks photos of one half of the data set with each candidate on each source, and keeps the confusion matrices of
the targets, one file for each candidate, source and seed; what is there already is not run again, and a run that was
stopped goes on after its last four photos. `show` prints the mean mIoU over all pairs of a source and a target of
another family, in percent (lower = stronger), and the paired difference to one candidate with its 95 % interval over
the photos. `effects` reads the runs of a Plackett-Burman design, `design0` to `design11`: in these twelve runs each of
eleven changes is made six times, so that its effect is the difference of two means of six; or with `--second` those of
the eight runs `second0` to `second7`, for seven further changes. Tune on the even photos, confirm on the odd ones
(`--half=odd`).

The file of networks names each with its `family` and its `path` (.pt2, weights.safetensors or embedded:NAME, from the
root of the repository); those that are not there are left out. Candidates are those of `transfer_candidates.py`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import yaml

from lightning_attack.attacks import image_seeds
from lightning_attack.common.atomic import atomic_write
from lightning_attack.data import SegmentationDataModule, SyntheticScenes, VOCSegmentation
from lightning_attack.engine import keep_freed_memory
from lightning_attack.metrics.iou import accuracy, class_counts, miou
from lightning_attack.metrics.segmentation import confusion_matrices
from lightning_attack.models import ExportedModel, SegmentationModel, TrainedModel, freeze
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.predict.cost import count_passes
from lightning_attack.report.intervals import mean_difference
from tests.benchmarks.transfer_candidates import CANDIDATES, CHANGES, DESIGN, MORE, SECOND

ROOT = Path(__file__).parents[2]
Batch = dict[str, Any]


class Pair(NamedTuple):
    """One attack, as seen by one network."""

    source: str
    seed: str
    target: str


def load(path: str) -> SegmentationModel:
    """The network of a path, frozen."""
    if path.startswith("embedded:"):
        return freeze(TrainedModel(path))
    file = str((ROOT / path).resolve())
    return freeze(ExportedModel(file) if path.endswith(".pt2") else TrainedModel(file))


def batches_of(config: Mapping[str, Any], half: str, count: int) -> list[Batch]:
    """`count` photos, spread evenly over the even or the odd ones of the data set; of scenes, others for each half."""
    if config["data"] == "scenes":
        scenes = SyntheticScenes(count=count, size=64, seed=1 + (half == "odd"))
        return list(SegmentationDataModule(scenes, batch_size=4).predict_dataloader())
    dataset = VOCSegmentation(str((ROOT / config["data"]).resolve()), split="val")
    loader = SegmentationDataModule(dataset, size=config["size"], batch_size=1).predict_dataloader()
    mine = range(half == "odd", len(dataset), 2)
    count = min(count, len(mine))
    chosen = [mine[number * len(mine) // count] for number in range(count)]
    assert loader.collate_fn is not None
    return [
        loader.collate_fn([loader.dataset[place] for place in chosen[start : start + 4]])
        for start in range(0, len(chosen), 4)
    ]


def confusions(network: SegmentationModel, images: torch.Tensor, batch: Batch) -> np.ndarray:
    """One confusion matrix for each image, (B, C, C)."""
    with torch.inference_mode():
        logits = network(images)
    return confusion_matrices(logits.max(1)[1], batch["mask"], logits.shape[1]).numpy()


def run(options: argparse.Namespace) -> None:
    """Attack and keep."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    config = yaml.safe_load(Path(options.networks).read_text())
    known = {name: one for name, one in config["networks"].items() if _is_there(one["path"])}
    networks = {name: load(one["path"]) for name, one in known.items()}
    families = {name: one["family"] for name, one in known.items()}
    sources = _chosen(options.sources, [name for name, one in known.items() if one.get("source", True)])
    matches = {pattern: fnmatch.filter(CANDIDATES, pattern) for pattern in options.candidates}
    if unknown := [pattern for pattern, names in matches.items() if not names]:
        raise SystemExit(f"no candidate is called {', '.join(unknown)}; there are {', '.join(CANDIDATES)}")
    names = list(dict.fromkeys(name for found in matches.values() for name in found))
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "families.json").write_text(json.dumps(families))
    fast = FastNetworks(list(networks.values()), options.engine, options.precision)
    batches = batches_of(config, options.half, options.photos)
    photos = sum(len(batch["image"]) for batch in batches)
    for seed, name, source in product(options.seeds, names, sources):
        file = options.folder / f"{name}@{options.passes}.{source}.{seed}.{options.half}.npz"
        targets = {target: networks[target] for target in networks if families[target] != families[source]}
        begun = file.with_name(f".{file.stem}.of-{photos}.npz")
        if _found(file, [*targets], photos):
            continue
        found = _found(begun, [*targets])
        start, spent, before = time.perf_counter(), 0.0, len(next(iter(found.values()))) if found else 0
        attack = CANDIDATES[name](options.passes)
        for batch in batches[-(-before // 4) :]:
            images, seeds = batch["image"], image_seeds(seed, batch["index"])
            with fast.attacking(), count_passes(networks[source]) as passes:
                adversarial = attack(networks[source], images, batch["mask"], seeds)
            spent += passes["backward"]
            adversarial = attack.quantize(images, adversarial)
            new = {target: confusions(network, adversarial, batch) for target, network in targets.items()}
            found = {target: np.concatenate([found[target], new[target]]) if found else new[target] for target in new}
            with atomic_write(begun) as unfinished:
                np.savez_compressed(unfinished, **found)  # type: ignore[arg-type]
        begun.replace(file)
        figures = "  ".join(f"{target} {100 * _miou(array):.1f}" for target, array in found.items())
        took = time.perf_counter() - start
        print(f"{file.stem}: {spent / max(1, photos - before):.0f} passes, {took:.0f} s, {figures}", flush=True)


def read(folder: Path, half: str, sources: Sequence[str] | None) -> dict[str, dict[Pair, np.ndarray]]:
    """The confusion matrices of each candidate on each pair of different families."""
    families = json.loads((folder / "families.json").read_text())
    results: dict[str, dict[Pair, np.ndarray]] = {}
    files = sorted(folder.glob(f"*@*.{half}.npz"))
    chosen = _chosen(sources, sorted({file.stem.rsplit(".", 3)[1] for file in files}))
    for file in files:
        name, source, seed, _ = file.stem.rsplit(".", 3)
        if source not in chosen:
            continue
        content = np.load(file)
        for target in content.files:
            if families[target] != families[source]:
                results.setdefault(name, {})[Pair(source, seed, target)] = content[target]
    return results


def show(options: argparse.Namespace) -> None:
    """Print each candidate beside the one that it is compared with, on the pairs and photos that both have."""
    results = read(options.folder, options.half, options.sources)
    if options.against not in results:
        raise SystemExit(f"no results of {options.against!r}; there are {', '.join(sorted(results)) or 'none'}")
    base = results[options.against]
    rows, others = [], []
    for name, found in results.items():
        common = [pair for pair in found if pair in base and len(found[pair]) == len(base[pair])]
        if not common:
            others.append(name)
            continue
        own, other = [found[pair] for pair in common], [base[pair] for pair in common]
        difference = mean_difference([*map(class_counts, own)], [*map(class_counts, other)])
        interval = f"{_points(difference.value)} [{_points(difference.low)}, {_points(difference.high)}]"
        hits = [float(np.mean([accuracy(class_counts(one.sum(0))) for one in side])) for side in (own, other)]
        by_source = {
            source: np.mean([_miou(found[pair]) - _miou(base[pair]) for pair in common if pair.source == source])
            for source in dict.fromkeys(pair.source for pair in common)
        }
        gaps = ", ".join(f"{source} {_points(gap)}" for source, gap in by_source.items())
        value = 100 * np.mean([_miou(one) for one in own])
        row = f"| `{name}` | {value:.1f} | {interval} | {_points(hits[0] - hits[1])} | {gaps} | {len(common)} |"
        rows.append((difference.value, row))
    print(f"| candidate | mIoU | difference to `{options.against}` | accuracy | by source | pairs |")
    print("|---|---|---|---|---|---|")
    print("\n".join(row for _, row in sorted(rows)))
    if others:
        print(f"\nNot compared, with other pairs or another number of photos: {', '.join(sorted(others))}")


def effects(options: argparse.Namespace) -> None:
    """Print the effect of each change of the design, in points of mIoU and of pixel accuracy."""
    results = read(options.folder, options.half, options.sources)
    name, design, changes = ("second", SECOND, MORE) if options.second else ("design", DESIGN, CHANGES)
    runs = [results.get(f"{name}{number}@{options.passes}", {}) for number in range(len(design))]
    common = sorted(set.intersection(*({*one} for one in runs)))
    if not common:
        raise SystemExit("the runs of the design have no pair of source and target in common; run them all")
    levels = np.array(design)
    print(f"{len(common)} pairs\n| change | mIoU | accuracy |\n|---|---|---|")
    scores = np.array([
        [np.mean([_miou(one[pair]) for pair in common]),
         np.mean([accuracy(class_counts(one[pair].sum(0))) for pair in common])] for one in runs
    ])  # fmt: skip
    for place, change in enumerate(changes):
        made = levels[:, place] == 1
        miou_effect, accuracy_effect = scores[made].mean(0) - scores[~made].mean(0)
        print(f"| {change} | {_points(miou_effect)} | {_points(accuracy_effect)} |")


def main(words: Sequence[str] | None = None) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("folder", type=Path)
    common.add_argument("--half", choices=["even", "odd"], default="even", help="which photos")
    common.add_argument("--sources", nargs="*", help="names of the networks to attack; default: all")
    common.add_argument("--passes", type=int, default=10, help="backward passes per photo")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    attack = commands.add_parser("run", parents=[common])
    attack.add_argument("--networks", type=Path, default=ROOT / "tests/configs/search_transfer.yaml")
    attack.add_argument("--candidates", nargs="*", default=["*"], metavar="NAME", help="names, or patterns: 'design*'")
    attack.add_argument("--photos", type=int, default=24)
    attack.add_argument("--seeds", type=int, nargs="*", default=[0])
    attack.add_argument("--threads", type=int, default=1)
    attack.add_argument("--engine", choices=["eager", "fused"], default="fused")
    attack.add_argument("--precision", choices=["float32", "bf16"], default="float32", help="of the attacks' passes")
    attack.set_defaults(command=run)
    table = commands.add_parser("show", parents=[common])
    table.add_argument("--against", default="recipe@10", help="candidate@passes that the others are compared with")
    table.set_defaults(command=show)
    table = commands.add_parser("effects", parents=[common])
    table.add_argument("--second", action="store_true", help="of the second design")
    table.set_defaults(command=effects)
    options = parser.parse_args(words)
    options.command(options)


def _chosen(wanted: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    """The sources that were asked for, or else all."""
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        raise SystemExit(f"--sources: no {', '.join(unknown)} here; there are {', '.join(sorted(there)) or 'none'}")
    return [name for name in there if not wanted or name in wanted]


def _found(file: Path, targets: Sequence[str], photos: int | None = None) -> dict[str, np.ndarray]:
    """The matrices of a file if it has all targets, and so many photos; else none."""
    if not file.exists():
        return {}
    content = np.load(file)
    found = {target: content[target] for target in targets if target in content.files}
    complete = len(found) == len(targets) and all(len(one) == photos or photos is None for one in found.values())
    return found if complete else {}


def _is_there(path: str) -> bool:
    return path.startswith("embedded:") or (ROOT / path).exists()


def _points(share: float) -> str:
    """A difference of shares in points; "-" where it is not known, as the interval of fewer than five photos."""
    return "-" if np.isnan(share) else f"{round(100 * share, 1) + 0:+.1f}"


def _miou(confusion: np.ndarray) -> float:
    """The mIoU of all images together."""
    return float(miou(class_counts(confusion.sum(0))))


if __name__ == "__main__":
    main()
