"""Folders of runs as `predict` leaves them, from confusion matrices that a test makes up."""

import json
from dataclasses import replace

import numpy as np

from lightning_attack.common.labels import class_colour
from lightning_attack.metrics.iou import class_counts
from lightning_attack.runs.names import panel_path
from lightning_attack.runs.panels import Strip, write_strip
from lightning_attack.runs.records import Record, Sparse
from lightning_attack.runs.summary import Scored, summarize
from tests.runs.kept import write

CLASSES = ("sky", "road", "tree")
NETWORKS = {"net_a": True, "net_b": False, "net_c": False}


def matrices(images, networks=3, classes=3, seed=0, lost=0.3, spread=0.1):
    """(images, networks, 2, C, C): the same clean predictions for each seed, and `lost` of the hits gone after it."""
    generator = np.random.default_rng(seed)
    clean = generator.integers(5, 20, (images, networks, classes, classes)) + 300 * np.eye(classes, dtype=int)
    share = np.clip(lost + spread * generator.normal(size=(images, networks, 1)), 0, 1)
    gone = np.round(share * np.diagonal(clean, axis1=2, axis2=3)).astype(int)
    attacked = clean.copy()
    for number in range(classes):
        attacked[:, :, number, number] -= gone[:, :, number]
        attacked[:, :, number, (number + 1) % classes] += gone[:, :, number]
    return np.stack([clean, attacked], 2)


def of_class(confusion):
    """Hits, labels and predictions as records hold them."""
    return class_counts(confusion).astype(np.int64)


def make_run(
    folder, attack="pgd", counts=None, source="net_a", white_box=NETWORKS, classes=CLASSES, names=None, digests=None,
    eps=8 / 255, seed=0, failed=(), networks="weights", form="v3:", steps=20, curve_steps=(), strips=(), **more,
):  # fmt: skip
    """Write a run of 24 images into a folder; `failed` are pairs of image and network, `more` goes into the table.

    `networks` stands for the weights of all networks; None is a run that kept no `settings.json`. `form` is what hashes
    of networks begin with; earlier versions had "". After each of the `curve_steps` but the last, half of the images
    are still clean. The images at the places `strips` have panels.
    """
    counts = matrices(24) if counts is None else counts
    names = names or [f"photo{number}" for number in range(len(counts))]
    digests = digests or [f"digest of {name}" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index, (name, digest, count) in enumerate(zip(names, digests, counts, strict=True)):
        bad = {network: "NaN" for image, network in failed if image == index}
        kept = count.copy()
        kept[[list(white_box).index(network) for network in bad]] = 0
        size = {"linf": 8.0, "l2": 1.0, "psnr": 33.0}
        passes = {"forward": 1 + steps, "backward": steps}
        of_classes, clean = of_class(kept[:, None]), Sparse.of(kept[:, 0])
        record = Record(index, name, of_classes, clean, size, passes, 0.1, digest=digest, failed=bad)
        if curve_steps:
            points = [kept[:, (index + place) % 2] for place in range(len(curve_steps) - 1)]
            record = replace(record, curve=of_class(np.stack([*points, kept[:, 1]], 1)))
        records.append(record)
        if index in strips:
            write_strip(panel_path(folder, index), make_strip(name, len(white_box)))
    write(folder, *records)
    _, report = summarize(records, Scored(attack, source, dict(white_box), classes, ("all",), tuple(curve_steps)))
    report["settings"] = {
        "attack": {"class": "IterativeAttack", "name": attack, "norm": {"class": "Linf", "eps": eps}, "steps": steps},
        "quantize": True,
        "seed": seed,
    }
    (folder / "transfer.json").write_text(json.dumps(report | more))
    if networks:
        model = {"targets": {name: f"{form}{networks} {name}" for name in white_box}, "windows": None, "engine": None}
        settings = {"model": model, "trainer": {"precision": "32-true"}}
        (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def make_strip(name, networks, height=12, width=16):
    """Grey photos 10, 20, 30, and label maps whose class is 0 above and 1 below; each prediction has a column of 2."""
    photos = [np.full((height, width, 3), grey, np.uint8) for grey in (10, 20, 30)]
    maps = []
    for number in range(1 + 2 * networks):
        labels = np.zeros((height, width), np.uint8)
        labels[height // 2 :] = 1
        labels[:, :number] = 2
        maps.append(np.array([class_colour(label) for label in range(3)], np.uint8)[labels])
    return Strip(name, np.concatenate([*photos, *maps], 1), magnify=10)


def edit(folder, change):
    """Change what the summary of a run says."""
    summary = json.loads((folder / "transfer.json").read_text())
    change(summary)
    (folder / "transfer.json").write_text(json.dumps(summary))
