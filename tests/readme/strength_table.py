"""The README's table of engines and precisions on trained networks: `python -m tests.readme.strength_table`.

An engine may change an attack by rounding only. For each source, attack and budget the table has the mIoU in percent of
the source / of the targets with every engine and precision: means over the first two of `--starts` random starts, of
`eager` over all, and how far apart these are. `equal` says that all means are within half a point of eager's, or within
that distance. The embedded networks are attacked on drawn scenes, those beside the repository on photos.
"""

import argparse
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_attack.attacks import Attack, InputDiversity, Momentum, pgd, transegpgd
from lightning_attack.data import SegmentationDataModule, SyntheticScenes, VOCSegmentation
from lightning_attack.metrics import SegmentationScores
from lightning_attack.models import ExportedModel, SegmentationModel, TrainedModel
from lightning_attack.predict.module import AttackModule
from tests.precisions import PRECISIONS

SHARED = Path(__file__).parents[3] / "shared"
EMBEDDED = "scenes_deeplabv3plus", "scenes_fpn", "scenes_segformer"
ZOO = "deeplabv3_mnv2_dm05_voc_257", "deeplabv3_mnv2_voc_257"
EPS = 2, 8
WAYS: tuple[tuple[Any, Any], ...] = (
    ("eager", "float32"), *((engine, precision) for engine in ("fused", "compiled") for precision in PRECISIONS),
)  # fmt: skip


def attacks(eps: int) -> dict[str, Attack]:
    """PGD and TranSegPGD with MI and DI, 20 steps of a quarter of the budget."""
    budget: dict[str, Any] = {"eps": f"{eps}/255", "steps": 20, "step_size": eps / 255 / 4}
    parts: dict[str, Any] = {"input_transforms": [InputDiversity()], "gradient_transforms": [Momentum()]}
    return {"PGD": pgd(**budget), "TranSegPGD+MI+DI": transegpgd(**budget, **parts)}


def studies(
    limit: int, sources: Collection[str]
) -> Iterator[tuple[str, dict[str, SegmentationModel], SegmentationDataModule]]:
    """Name of a source, networks with the source first, and photos."""
    embedded: dict[str, SegmentationModel] = {name: TrainedModel(f"embedded:{name}") for name in EMBEDDED}
    scenes = SegmentationDataModule(SyntheticScenes(count=limit, size=128), batch_size=8)
    if EMBEDDED[0] in sources:
        yield EMBEDDED[0], embedded, scenes
    if not (SHARED / "zoo").is_dir():
        return
    photos = SegmentationDataModule(
        VOCSegmentation(str(SHARED / "data" / "VOCdevkit"), split="val"), size=256, every=16, limit=limit, batch_size=4
    )
    for first in (name for name in ZOO if name in sources):
        order = sorted(ZOO, key=lambda name: name != first)
        yield first, {name: ExportedModel(str(SHARED / "zoo" / f"{name}.pt2")) for name in order}, photos


def score(module: AttackModule, attack: Attack, seed: int, batches: list[dict[str, Any]]) -> tuple[float, float]:
    """mIoU in percent of the source, and the mean of the targets, on adversarial images."""
    module.attack, module.seed = attack, seed
    scores = {name: SegmentationScores(module.num_classes) for name in module.target_names}
    for number, batch in enumerate(batches):
        output = module.predict_step(batch, number)
        for name, preds in output.preds.items():
            scores[name].update(preds["adversarial"], output.labels)
    source, *targets = (100 * float(one.compute()["miou"]) for one in scores.values())
    return source, sum(targets) / len(targets)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=24, help="number of photos")
    parser.add_argument("--starts", type=int, default=5, help="number of random starts of `eager`")
    parser.add_argument("--engine_starts", type=int, default=2, help="number of random starts of the others")
    parser.add_argument("--engines", nargs="*", choices=["fused", "compiled"], default=["fused", "compiled"])
    sources = EMBEDDED[0], *ZOO
    parser.add_argument("--sources", nargs="*", choices=sources, default=sources)
    options = parser.parse_args(words)
    ways = [way for way in WAYS if way[0] in ("eager", *options.engines)]
    headings = [f"{engine} {precision}".replace(" float32", "") for engine, precision in ways]
    print("| source | attack | eps | " + " | ".join(headings) + " | starts | equal |\n|" + "---|" * (5 + len(ways)))
    for name, networks, data in studies(options.limit, options.sources):
        batches = list(data.predict_dataloader())
        cells = [(eps, title, attack) for eps in EPS for title, attack in attacks(eps).items()]
        figures: dict[tuple[int, int], torch.Tensor] = {}  # (starts, 2): source, targets
        for way, (engine, precision) in enumerate(ways):
            targets = {other: network for other, network in networks.items() if other != name}
            module = AttackModule(networks[name], cells[0][2], targets, engine=engine, precision=precision)
            for cell, (_, _, attack) in enumerate(cells):
                starts = range(options.starts if engine == "eager" else options.engine_starts)
                scores = [score(module, attack, seed, batches) for seed in starts]
                figures[way, cell] = torch.tensor(scores)
        for cell, (eps, title, _) in enumerate(cells):
            means = torch.stack([figures[way, cell].mean(0) for way in range(len(ways))])
            spread = figures[0, cell].amax(0) - figures[0, cell].amin(0)
            equal = bool(((means - means[0]).abs() <= spread.clamp_min(0.5)).all())
            texts = [f"{white:.2f} / {transfer:.2f}" for white, transfer in [*means, spread]]
            print(f"| {' | '.join([f'`{name}`', title, f'{eps}/255', *texts, 'yes' if equal else 'no'])} |", flush=True)


if __name__ == "__main__":
    main()
