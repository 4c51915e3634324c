"""What a run leaves behind, read back from disk and counted by hand."""

import csv
import math
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import (
    AttackProgress,
    ImageWriter,
    TransferMetrics,
)
from lightning_attack.data import Scene, SegmentationDataset
from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.models.fingerprint import fingerprint
from tests.callbacks.small_runs import SCENES, events, model, run, strict_json

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
    images += [f"records/{index:08d}.record" for index in range(5)]
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


def test_saved_images_stay_in_the_budget(finished):
    folder, metrics, _ = finished
    largest = 0
    for scene in SCENES:
        saved = np.array(Image.open(folder / "images" / f"{scene.name}.png")).astype(int)
        largest = max(largest, np.abs(saved - scene.image).max())
    assert largest == 8
    assert metrics.report["perturbation"]["linf"] == pytest.approx(8, abs=1e-4)


def test_json(finished):
    folder, metrics, _ = finished
    report = strict_json(folder / "transfer.json")
    assert report == metrics.report
    assert [{column: entry[column] for column in COLUMNS} for entry in report["targets"]] == metrics.rows
    assert (report["attack"], report["source"], report["images"]) == ("transegpgd", "source", 5)
    assert report["passes_per_image"] == {"forward": 7, "backward": 6}
    seconds = report["seconds"]
    assert 0 < min(seconds["attack"], seconds["scoring"]) < seconds["attack"] + seconds["scoring"] < seconds["run"]
    assert 0 <= report["peak_memory_mb_per_image"] < 1000
    assert report["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert set(report["versions"]) >= {"python", "torch", "lightning", "torchmetrics"}
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


def test_tensorboard_scalars(finished):
    folder, metrics, networks = finished
    accumulator = events(folder)
    for row in metrics.rows:
        for tag, column in (("clean", "clean_miou"), ("adversarial", "adversarial_miou"), ("drop", "drop")):
            (event,) = accumulator.Scalars(f"{tag}/miou/{row['target']}")
            assert event.value == pytest.approx(row[column], abs=1e-6)
    curves = dict(metrics.report["curves"])
    curves["fooled"] = [1 - value for value in curves["p_t"]]
    curves["stage_two_share"] = [value / 5 for value in curves["stage_two"]]
    for name, curve in curves.items():
        logged = {event.step: event.value for event in accumulator.Scalars(f"steps/{name}")}
        assert logged == pytest.approx({step: value for step, value in enumerate(curve) if value is not None}, abs=1e-5)
    # Over the images: the first three by hand, and all at the end.
    saved = [np.array(Image.open(folder / "images" / f"{scene.name}.png")) for scene in SCENES]
    for row, kind in zip(metrics.rows, ("transfer", "white_box"), strict=True):
        events_of = accumulator.Scalars(f"over_images/{kind}/{row['target']}")
        assert [event.step for event in events_of] == [1, 2, 3, 4, 5]
        by_hand, _, _ = miou_by_hand(networks[row["target"]], saved[:3], [scene.mask for scene in SCENES][:3])
        assert events_of[2].value == pytest.approx(by_hand, abs=1e-6)
        assert events_of[4].value == pytest.approx(row["adversarial_miou"], abs=1e-6)
        assert accumulator.Scalars(f"over_images/clean/{row['target']}")[4].value == pytest.approx(row["clean_miou"])


def test_tensorboard_hyperparameters_with_results(finished):
    folder, metrics, _ = finished
    accumulator = events(folder)
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}
    assert values == {
        "attack": "transegpgd", "source": "source", "eps": 8, "step_size": 2.55, "steps": 6, "trial/norm": "Linf",
        "trial/random_start": False, "trial/seed": 0, "trial/engine": "auto", "trial/precision": "float32",
        "trial/quantize": True, "trial/images": 5,
    }  # fmt: skip
    other, twin = metrics.rows
    shown = {
        "white_box_miou": twin["adversarial_miou"], "transfer_miou": other["adversarial_miou"],
        "transfer_drop": other["drop"], "backward_passes": 6,
    }  # fmt: skip
    for name, value in shown.items():
        (event,) = accumulator.Scalars(f"result/{name}")
        assert event.value == pytest.approx(value, abs=1e-6)
    content = accumulator.SummaryMetadata("_hparams_/experiment").plugin_data.content
    infos = HParamsPluginData.FromString(content).experiment.metric_infos
    assert {info.name.tag for info in infos} == {f"result/{name}" for name in shown}


def test_tensorboard_charts_have_curves(finished):
    folder, _, _ = finished
    accumulator = events(folder)
    content = accumulator.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = {chart.title: list(chart.multiline.tag) for category in Layout.FromString(content).category
              for chart in category.chart}  # fmt: skip
    tags = accumulator.Tags()["scalars"]
    found = {title: {tag for tag in tags for regex in kinds if re.match(regex, tag)} for title, kinds in charts.items()}
    assert found == {
        "adversarial mIoU over the first n images": {"over_images/white_box/twin", "over_images/transfer/other"},
        "clean mIoU over the first n images": {"over_images/clean/twin", "over_images/clean/other"},
        "loss": {"steps/loss"},
        "share of pixels that are fooled": {"steps/fooled"},
        "share of pixels in P_H, share of images in stage two": {"steps/p_h", "steps/stage_two_share"},
    }


def text(accumulator, tag):
    (event,) = accumulator.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_tensorboard_tables(finished):
    folder, metrics, _ = finished
    accumulator = events(folder)
    *_, heading, line, other, twin = text(accumulator, "result/miou").splitlines()
    assert (heading, line) == ("| target | clean | adversarial | drop |", "| --- | ---: | ---: | ---: |")
    for row, shown in zip(metrics.rows, (other, twin), strict=True):
        title = row["target"] + (" (white box)" if row["white_box"] else "")
        numbers = [f"{100 * row[column]:.2f}" for column in ("clean_miou", "adversarial_miou", "drop")]
        assert shown == f"| {' | '.join([title, *numbers])} |"
    _, _, heading, _, *rows = text(accumulator, "result/per_class_iou").splitlines()
    assert heading == "| class | other | twin |"
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in SCENES.classes]
    for row, name in zip(rows, SCENES.classes, strict=True):
        for cell, entry in zip(row.strip("| ").split(" | ")[1:], metrics.report["targets"], strict=True):
            pair = [entry["clean_iou"][name], entry["adversarial_iou"][name]]
            assert cell == " → ".join("-" if value is None else f"{100 * value:.2f}" for value in pair)
    assert text(accumulator, "run/command") == "    a b"


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


class Brighter(Attack):
    """Adds a share of a level, so that saving has something to round."""

    def perturb(self, problem):
        return (problem.images + 0.7 / 255).clamp(0, 1)


def test_float_images_are_rounded_not_cut(tmp_path):
    run(tmp_path, Brighter("brighter"), quantize=False)
    for scene in SCENES:
        saved = Image.open(tmp_path / "brighter_source" / "version_0" / "images" / f"{scene.name}.png")
        assert np.array_equal(np.array(saved), np.minimum(scene.image.astype(int) + 1, 255))


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


def test_nested_names_and_an_image_without_labels(tmp_path):
    metrics = run(tmp_path, pgd(steps=2), dataset=Nested())
    folder = tmp_path / "pgd_source" / "version_0"
    saved = sorted((folder / "images" / "town" / "day.1").iterdir())
    assert [path.name for path in saved] == [f"scene_{index:06d}.png" for index in range(3)]
    assert np.array_equal(np.array(Image.open(saved[1])), SCENES[1].image)  # nothing to attack
    assert metrics.rows[0]["images"] == 3
    strict_json(folder / "transfer.json")


def test_without_masks(tmp_path):
    metrics = run(tmp_path, pgd(steps=2), {"other": model(1)}, dataset=Nested(masks=False))
    source, other = metrics.rows
    assert (source["clean_miou"], source["clean_accuracy"]) == (1, 1)
    assert other["clean_miou"] < 1
    report = strict_json(tmp_path / "pgd_source" / "version_0" / "transfer.json")
    assert list(report["targets"][0]["clean_iou"]) == [str(c) for c in range(8)]


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


def test_networks_that_differ_in_settings_only_are_others():
    first, second = model(1), model(2)
    ensembles = [Ensemble([first, second], [1, 3]), Ensemble([first, second], [3, 1]),
                 Ensemble([first, second], [3, 1], by="softmax")]  # fmt: skip
    wide = SegmentationModel(deepcopy(first.network), mean=(0.5,) * 3, std=(0.25,) * 3, stride=8, name="net")
    prints = [fingerprint(network) for network in (*ensembles, first, second, wide)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(model(1)) == fingerprint(first.train())


def test_own_folder_and_other_loggers(tmp_path):
    callbacks = [TransferMetrics(str(tmp_path / "mine"), table=False), ImageWriter(str(tmp_path / "mine"))]
    run(tmp_path, NoAttack(), callbacks=callbacks, logger=CSVLogger(tmp_path / "log"))
    assert (tmp_path / "mine" / "transfer.csv").is_file()
    assert len(list((tmp_path / "mine" / "images").iterdir())) == 5
    (file,) = (tmp_path / "log").rglob("metrics.csv")
    header, *rows = list(csv.reader(file.open()))
    curve = [row[header.index("over_images/white_box/source")] for row in rows]
    assert len([value for value in curve if value]) == 5


def test_table_on_the_console(tmp_path, capsys):
    metrics = run(tmp_path, pgd(steps=2), {"other": model(1)})
    printed = capsys.readouterr().out
    source, other = metrics.rows
    assert "source (white box)" in printed
    for row in (source, other):
        for column in ("clean_miou", "adversarial_miou", "drop"):
            assert f"{100 * row[column]:.2f}" in printed
    assert f"Results: {tmp_path / 'pgd_source' / 'version_0'}" in printed


def test_progress_without_a_terminal_is_lines(tmp_path, capsys):
    run(tmp_path, NoAttack(), callbacks=[AttackProgress(every=0)], bar=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attacked")]
    assert lines == [f"attacked batch {number} of 3" for number in (1, 2, 3)]
