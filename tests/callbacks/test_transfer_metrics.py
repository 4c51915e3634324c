"""`TransferMetrics`: what a run leaves behind, read back from disk and counted by hand."""

import csv
import math
from datetime import datetime

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.callbacks import ImageWriter, RunFolder, TransferMetrics, transfer_metrics
from lightning_attack.callbacks.result_table import show_result
from lightning_attack.data import Scene, SegmentationDataset
from lightning_attack.predict.doubt import Doubt
from lightning_attack.report import read_run
from tests.callbacks.small_runs import SCENES, model, run, strict_json

COLUMNS = [
    "attack", "source", "target", "white_box", "images", "clean_miou", "adversarial_miou", "drop", "clean_accuracy",
    "adversarial_accuracy",
]  # fmt: skip


def table(folder):
    with (folder / "transfer.csv").open(newline="") as file:
        return list(csv.reader(file))


def miou_by_hand(network, photos, masks):
    """mIoU over the classes in the labels and accuracy, image by image and class by class."""
    hits, either, labelled = np.zeros(8), np.zeros(8), np.zeros(8)
    for photo, mask in zip(photos, masks, strict=True):
        image = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            said = network(image)[0].numpy().argmax(0)
        for c in range(8):
            here, there = (said == c) & (mask != 255), mask == c
            hits[c] += (here & there).sum()
            either[c] += (here | there).sum()
            labelled[c] += there.sum()
    occurs = labelled > 0
    iou = np.where(occurs, hits / np.maximum(either, 1), np.nan)
    return float(np.mean(iou[occurs])), float(hits.sum() / labelled.sum()), iou


def test_what_is_in_the_folder(finished):
    folder, _, _ = finished
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    images = [f"images/scene_{index:06d}.png" for index in range(5)]
    images += [f"panels/{index:08d}.png" for index in range(3)]
    images += ["records/0000_0000.segment"]
    events = [name for name in files if name.startswith("events.out.tfevents")]
    assert len(events) == 1
    own = [".lock", "hparams.yaml", "settings.json", "transfer.csv", "transfer.json"]
    assert files == sorted([*events, *images, *own])  # (no unfinished files)


def test_saved_images_score_what_the_table_says(finished):
    folder, _, networks = finished
    header, *rows = table(folder)
    assert header == COLUMNS
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["target"], row["white_box"]) for row in rows] == [("other", "False"), ("twin", "True")]
    clean = [scene.image for scene in SCENES]
    masks = [scene.mask for scene in SCENES]
    saved = [np.array(Image.open(folder / "images" / f"{scene.name}.png")) for scene in SCENES]
    assert all(image.dtype == np.uint8 and image.shape == (32, 32, 3) for image in saved)
    report = strict_json(folder / "transfer.json")
    for row, entry in zip(rows, report["targets"], strict=True):
        assert (row["attack"], row["source"], row["images"]) == ("transegpgd", "source", "5")
        for condition, photos in (("clean", clean), ("adversarial", saved)):
            miou, accuracy, iou = miou_by_hand(networks[row["target"]], photos, masks)
            assert float(row[f"{condition}_miou"]) == pytest.approx(miou, abs=1e-12)
            assert float(row[f"{condition}_accuracy"]) == pytest.approx(accuracy, abs=1e-12)
            by_name = dict(zip(SCENES.classes, (None if math.isnan(x) else x for x in iou), strict=True))
            assert entry[f"{condition}_iou"] == pytest.approx(by_name, abs=1e-12)
            assert entry[f"{condition}_miou_union"] <= miou + 1e-12
        assert float(row["drop"]) == pytest.approx(float(row["clean_miou"]) - float(row["adversarial_miou"]), abs=1e-12)
    assert float(rows[1]["clean_miou"]) > 0.3
    assert float(rows[1]["drop"]) > 0.1  # the white box is hit


def test_json(finished):
    folder, metrics, _ = finished
    report = strict_json(folder / "transfer.json")
    assert report == metrics.summary
    assert [{column: entry[column] for column in COLUMNS} for entry in report["targets"]] == metrics.rows
    assert (report["attack"], report["source"], report["images"]) == ("transegpgd", "source", 5)
    assert report["passes_per_image"] == {"forward": 7, "backward": 6}
    seconds = report["seconds"]
    assert 0 < min(seconds["attack"], seconds["scoring"]) < seconds["attack"] + seconds["scoring"] < seconds["run"]
    assert 0 <= report["peak_memory_mb_per_image"] < 1000
    assert report["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert report["device"]["type"] == "cpu"
    assert set(report["versions"]) >= {"lightning_attack", "python", "torch", "lightning", "torchmetrics"}
    about = {"dataset": "SyntheticScenes", "photos": 5, "chosen": 5, "classes": 8, "size": [32, 32]}
    assert about.items() <= report["data"].items()
    age = datetime.now().astimezone() - datetime.fromisoformat(report["date"])
    assert 0 <= age.total_seconds() < 3600
    assert report["units"]["perturbation.psnr"] == "dB"
    assert (report["settings"]["seed"], report["settings"]["quantize"]) == (0, True)
    attack = report["settings"]["attack"]
    assert (attack["steps"], attack["norm"]["eps"], attack["norm"]["class"]) == (6, 8 / 255, "Linf")
    stages = attack["objective"]["stages"]
    assert [stage["class"] for stage in stages] == ["FoolAllPixels", "TransferablePixels"]


def test_perturbation_is_that_of_the_saved_images(finished):
    folder, _, _ = finished
    l2, psnr = [], []
    for scene in SCENES:
        saved = np.array(Image.open(folder / "images" / f"{scene.name}.png")).astype(float)
        delta = (saved - scene.image) / 255
        l2.append(np.sqrt((delta**2).sum()))
        psnr.append(-10 * np.log10((delta**2).mean()))
    size = strict_json(folder / "transfer.json")["perturbation"]
    assert size["l2"] == pytest.approx(np.mean(l2), rel=1e-5)
    assert size["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)


def test_curves(finished):
    folder, _, networks = finished
    curves = strict_json(folder / "transfer.json")["curves"]
    assert set(curves) == {"loss", "p_t", "p_h", "stage_two"}
    assert {len(curve) for curve in curves.values()} == {6}
    # Stage two starts for all images at half of the steps; before that only for images without a right pixel.
    assert curves["stage_two"][3:] == [5, 5, 5]
    assert curves["stage_two"][0] == 0
    assert all(value is not None and 0 <= value <= 1 for value in curves["p_h"][3:])
    # The first step sees the clean images: means over images, not over pixels.
    shares, losses = [], []
    for scene in SCENES:
        with torch.no_grad():
            logits = networks["twin"](torch.from_numpy(scene.image).permute(2, 0, 1)[None] / 255)[0].double().numpy()
        labelled = scene.mask != 255
        logits, classes = logits[:, labelled], scene.mask[labelled]
        right = logits.argmax(0) == classes
        entropy = np.log(np.exp(logits).sum(0)) - logits[classes, np.arange(len(classes))]
        shares.append(right.mean())
        losses.append((np.where(right, 0.9, 0.1) * entropy).mean())
    assert curves["p_t"][0] == pytest.approx(np.mean(shares), abs=1e-6)
    assert curves["loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)
    assert curves["p_t"][-1] < curves["p_t"][0]


def test_no_attack(tmp_path):
    metrics = run(tmp_path, NoAttack(), {"other": model(1)})
    folder = tmp_path / "no_attack_source" / "version_0"
    report = strict_json(folder / "transfer.json")
    assert report["perturbation"] == {"linf": 0, "linf_median": 0, "l2": 0, "psnr": None}
    assert report["curves"] == {}
    assert report["passes_per_image"] == {"forward": 0, "backward": 0}
    assert all(row["drop"] == 0 and row["clean_miou"] == row["adversarial_miou"] for row in metrics.rows)
    for scene in SCENES:
        assert np.array_equal(np.array(Image.open(folder / "images" / f"{scene.name}.png")), scene.image)


class Nested(SegmentationDataset):
    """Photos in folders, without labels on some of them or on all."""

    def __init__(self, masks=True):
        self.classes = SCENES.classes if masks else None

    def __len__(self):
        return 3

    def __getitem__(self, index):
        scene = SCENES[index]
        mask = np.full_like(scene.mask, 255) if index == 1 else scene.mask
        return Scene(scene.image, mask if self.classes else None, f"town/day.1/{scene.name}")


def test_without_masks(tmp_path):
    metrics = run(tmp_path, pgd(steps=2), {"other": model(1)}, dataset=Nested(masks=False))
    source, other = metrics.rows
    assert (source["clean_miou"], source["clean_accuracy"]) == (1, 1)
    assert other["clean_miou"] < 1
    report = strict_json(tmp_path / "pgd_source" / "version_0" / "transfer.json")
    assert list(report["targets"][0]["clean_iou"]) == [str(c) for c in range(8)]
    assert report["labels"] == "clean prediction of the source"


class Named(Nested):
    """Classes have names, though there are no masks; the first look finds a reason to doubt."""

    def __getitem__(self, index):
        scene = super().__getitem__(index)
        return Scene(scene.image, None, scene.name)


def test_a_finished_run_keeps_what_it_knows_of_its_images(tmp_path, monkeypatch):
    """The same command again attacks no image, so no image tells again."""
    doubt = Doubt("source", "orientation", "masks and photos seem to lie differently")
    monkeypatch.setattr(transfer_metrics, "doubts_about_orientation", lambda *_: [doubt])
    monkeypatch.setattr(transfer_metrics, "FIRST", 2)
    reports = []
    for dataset in (Nested(), Named()):
        for device in ("before", "now"):
            monkeypatch.setattr(transfer_metrics, "device_facts", lambda *_, device=device: {"type": device})
            keeping = [RunFolder(str(tmp_path / type(dataset).__name__), "mine"), ImageWriter(), TransferMetrics()]
            run(tmp_path, pgd(steps=2), dataset=dataset, callbacks=keeping)
            reports.append(strict_json(tmp_path / type(dataset).__name__ / "mine" / "transfer.json"))
    for first, again in (reports[:2], reports[2:]):
        same = "labels", "warnings", "device", "versions", "targets"
        assert {key: first[key] for key in same} == {key: again[key] for key in same}
    assert [one["labels"] for one in reports] == ["masks"] * 2 + ["clean prediction of the source"] * 2
    assert doubt._asdict() in reports[1]["warnings"]
    assert reports[1]["device"] == {"type": "before"}


class Unlabelled(Nested):
    def __getitem__(self, index):
        scene = super().__getitem__(index)
        return Scene(scene.image, np.full_like(scene.mask, 255), scene.name)


def test_without_one_labelled_pixel_there_is_no_number(tmp_path):
    metrics = run(tmp_path, pgd(steps=2), dataset=Unlabelled())
    folder = tmp_path / "pgd_source" / "version_0"
    assert metrics.rows[0]["clean_miou"] is None
    assert table(folder)[1][5:] == [""] * 5
    assert strict_json(folder / "transfer.json")["targets"][0]["drop"] is None


def test_own_folder_and_other_loggers(tmp_path):
    callbacks = [TransferMetrics(str(tmp_path / "mine"), table=False), ImageWriter(str(tmp_path / "mine"))]
    run(tmp_path, NoAttack(), callbacks=callbacks, logger=CSVLogger(tmp_path / "log"))
    assert (tmp_path / "mine" / "transfer.csv").is_file()
    assert len(list((tmp_path / "mine" / "images").iterdir())) == 5
    (file,) = (tmp_path / "log").rglob("metrics.csv")
    header, *rows = list(csv.reader(file.open()))
    curve = [row[header.index("over_images/white_box/source")] for row in rows]
    assert len([value for value in curve if value]) == 5


class SomeNames(Nested):
    """Classes without names, and one with the number of another."""

    def __init__(self):
        self.classes = ("road", "", "sky", "", "1", "car", "tree", "pole")


def test_every_class_has_figures_of_its_own(tmp_path):
    metrics = run(tmp_path, NoAttack(), dataset=SomeNames())
    names = ["road", "class 1", "sky", "3", "1", "car", "tree", "pole"]
    assert [*metrics.summary["targets"][0]["clean_iou"]] == names
    assert read_run(tmp_path / "no_attack_source" / "version_0").classes == tuple(names)


def test_names_with_brackets_are_no_markup(tmp_path, capsys):
    names = {"white_box": False, "attack": "a[b]", "source": "s[/b]", "target": "t[bold]", "images": 2}
    row = names | {"clean_miou": 0.5, "adversarial_miou": 0.5, "drop": None}
    show_result([row], {"labels": "masks", "warnings": []}, tmp_path / "f[b]")
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("a[b] on s[/b], 2 images", "t[bold]", f"{tmp_path / 'f[b]'}"))


def test_table_on_the_console(tmp_path, capsys):
    metrics = run(tmp_path, pgd(steps=2), {"other": model(1)})
    printed = capsys.readouterr().out
    source, other = metrics.rows
    assert "source (white box)" in printed
    for row in (source, other):
        for column in ("clean_miou", "adversarial_miou", "drop"):
            assert f"{100 * row[column]:.2f}" in printed
    assert f"Results: {tmp_path / 'pgd_source' / 'version_0'}" in printed
