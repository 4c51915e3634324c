"""What a run leaves behind, read back from disk and counted by hand."""

import csv
import fcntl
import io
import json
import math
import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

from lightning_attack.attacks import NoAttack, pgd, transegpgd
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import (
    AttackProgress,
    ImageLogger,
    ImageWriter,
    Overview,
    RunFolder,
    TransferMetrics,
    image_logger,
)
from lightning_attack.callbacks.run_folder import RunError
from lightning_attack.data import Scene, SegmentationDataModule, SegmentationDataset, SyntheticScenes
from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.pictures.panels import class_colours
from lightning_attack.predict.module import AttackModule

COLUMNS = [
    "attack", "source", "target", "white_box", "images", "clean_miou", "adversarial_miou", "drop", "clean_accuracy",
    "adversarial_accuracy",
]  # fmt: skip
SCENES = SyntheticScenes(5, size=32)


@cache
def trained(seed):
    """A tiny network that knows the scenes a little, so that there is something to lose."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 8, 1))
    photos = torch.stack([torch.from_numpy(scene.image) for scene in SCENES]).permute(0, 3, 1, 2) / 255
    masks = torch.stack([torch.from_numpy(scene.mask) for scene in SCENES]).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(4 * photos - 2), masks, ignore_index=255).backward()
        optimizer.step()
    return network


def model(seed=0, name="net"):
    return SegmentationModel(deepcopy(trained(seed)), mean=(0.5,) * 3, std=(0.25,) * 3, name=name)


def run(results, attack, targets=None, dataset=SCENES, callbacks=None, logger=False, count=3, bar=False, **arguments):
    """Attack in a real run; returns its folder and the callback that keeps the scores."""
    metrics = TransferMetrics()
    kept = callbacks or [RunFolder(str(results)), ImageWriter(), ImageLogger(count, width=24), metrics, Overview("a b")]
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=kept,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
    )
    module = AttackModule(model(0, "source"), attack, targets, **arguments)
    trainer.predict(module, datamodule=SegmentationDataModule(dataset, batch_size=2), return_predictions=False)
    return metrics


def table(folder):
    with (folder / "transfer.csv").open(newline="") as file:
        return list(csv.reader(file))


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of TranSegPGD with a white box and a target, looked at by many tests."""
    results = tmp_path_factory.mktemp("results")
    targets = {"other": model(1), "twin": model(0)}
    metrics = run(results, transegpgd(steps=6, random_start=False), targets)
    return results / "transegpgd_source" / "version_0", metrics, {"other": model(1), "twin": model(0)}


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


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


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


def strips(folder):
    accumulator = events(folder)
    for tag in accumulator.Tags()["images"]:
        (event,) = accumulator.Images(tag)
        yield tag, event


def test_tensorboard_images(finished):
    """The strips in rows of four, under headings of two lines, over the colours of the classes that occur."""
    folder, _, _ = finished
    logged = dict(strips(folder))
    assert set(logged) == {f"images/scene_{index:06d}" for index in range(3)}
    for index in range(3):
        event = logged[f"images/scene_{index:06d}"]
        picture = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        strip = np.array(Image.open(folder / "panels" / f"{index:08d}.png"))
        panels = np.split(strip, 8, axis=1)
        assert panels[0].shape == (24, 24, 3)  # shrunk from 32
        for number, panel in enumerate(panels):
            top, left = 32 + number // 4 * (32 + 24 + 6), number % 4 * (24 + 6)
            assert np.array_equal(picture[top : top + 24, left : left + 24], panel)
            assert (picture[top - 16 : top, left : left + 24] < 128).any()  # a heading
        legend = {tuple(colour) for colour in picture[2 * (32 + 24 + 6) :].reshape(-1, 3)}
        occurs = {tuple(colour) for panel in panels[3:] for colour in panel.reshape(-1, 3)}
        colours = {tuple(colour) for colour in class_colours()[1:7].tolist()}  # (greys are those of letters, too)
        assert legend & colours == occurs & colours


def test_few_strips_are_kept_in_memory(tmp_path, monkeypatch):
    read, own = [], image_logger.read_strip
    monkeypatch.setattr(image_logger, "AT_HAND", 2)
    monkeypatch.setattr(image_logger, "read_strip", lambda file: (read.append(file.name), own(file))[1])
    metrics = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=1), callbacks=[RunFolder(str(tmp_path), "mine"), ImageLogger(4), metrics])
    assert sorted(read) == ["00000002.png", "00000003.png"]
    assert {tag for tag, _ in strips(tmp_path / "mine")} == {f"images/scene_{index:06d}" for index in range(4)}


def test_a_run_that_goes_on_draws_its_curves_once(tmp_path):
    def callbacks():
        metrics = TransferMetrics(table=False)
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), ImageLogger(2), metrics, Overview()]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    (tmp_path / "mine" / "records" / f"{3:08d}.record").unlink()
    for _ in range(2):  # with something left to do, and with nothing
        run(tmp_path, pgd(steps=2), callbacks=callbacks())
        (file,) = (tmp_path / "mine").glob("events.out.tfevents.*")
        told = [value.tag for event in LegacyEventFileLoader(str(file)).Load() for value in event.summary.value]
        counts = {tag: told.count(tag) for tag in told}
        assert counts.pop("steps/loss") == 2
        assert counts.pop("over_images/white_box/source") == 5
        assert (
            counts["images/scene_000000"]
            == counts["adversarial/miou/source"]
            == counts["result/miou/text_summary"]
            == 1
        )


def test_panels_show_what_they_say(tmp_path):
    callbacks = [RunFolder(str(tmp_path)), ImageWriter(), ImageLogger(count=1, magnify=5)]
    run(tmp_path, pgd(steps=2), callbacks=callbacks)
    folder = tmp_path / "pgd_source" / "version_0"
    strip = np.array(Image.open(folder / "panels" / f"{0:08d}.png")).astype(int)
    clean, adversarial, difference, truth, before, after = np.split(strip, 6, axis=1)
    scene = SCENES[0]
    saved = np.array(Image.open(folder / "images" / f"{scene.name}.png")).astype(int)
    assert np.array_equal(clean, scene.image)
    assert np.array_equal(adversarial, saved)
    assert np.abs(difference - np.clip(127.5 + 5 * (saved - scene.image), 0, 255)).max() <= 1
    # One colour for one class, in all three maps.
    seen = {}
    for picture, classes in ((truth, scene.mask), (before, said(scene.image)), (after, said(saved))):
        for c in np.unique(classes):
            colours = {tuple(colour) for colour in picture[classes == c]}
            assert len(colours) == 1
            assert seen.setdefault(int(c), colours) == colours
    assert seen[255] == {(255, 255, 255)}
    assert len(set.union(*seen.values())) == len(seen)


def said(photo):
    image = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model(0)(image)[0].argmax(0).numpy()


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


def test_each_run_has_a_folder_of_its_own(tmp_path):
    for number in range(2):
        run(tmp_path, NoAttack())
        assert (tmp_path / "no_attack_source" / f"version_{number}" / "transfer.csv").is_file()


def test_a_finished_run_of_the_same_name_is_not_attacked_again(tmp_path):
    first, second = TransferMetrics(), TransferMetrics()
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), first])
    content = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}

    class Never(NoAttack):
        def perturb(self, problem):
            raise AssertionError("nothing is left to attack")

    Never.__name__ = "NoAttack"  # what settings say of it
    run(tmp_path, Never(), callbacks=[RunFolder(str(tmp_path), "mine"), second])
    assert second.rows == first.rows
    assert second.report["seconds"]["run"] > first.report["seconds"]["run"] > first.report["seconds"]["attack"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()} == content


def test_another_run_of_the_same_name_is_refused(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    content = (tmp_path / "mine" / "transfer.json").read_text()
    for change, says in (
        ({"seed": 1}, r"model\.seed: 0 before, 1 now"),
        ({"targets": {"other": model(1)}}, r"model\.targets\.other: not there before, [0-9a-f]{16} now"),
    ):
        with pytest.raises(RunError, match=rf"mine' is a run of other settings; .*--fresh=true(?s:.*){says}"):
            run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()], **change)
    assert (tmp_path / "mine" / "transfer.json").read_text() == content
    (tmp_path / "mine" / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"is no run that could go on \(no readable settings.json\)"):
        run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])


def test_fresh_starts_over_and_keeps_the_old_folder(tmp_path):
    for number in range(3):
        folder = RunFolder(str(tmp_path), "mine", fresh=True)
        run(tmp_path, NoAttack(), callbacks=[folder, TransferMetrics()], seed=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.old_0", "mine.old_1"]
    seeds = [json.loads((tmp_path / name / "settings.json").read_text())["model"]["seed"]
             for name in ("mine.old_0", "mine.old_1", "mine")]  # fmt: skip
    assert seeds == [0, 1, 2]


class Fails(Attack):
    """Fails at one of its batches."""

    def __init__(self, error=RuntimeError, at=2):
        super().__init__("fails")
        self._calls, self._error, self._at = 0, error, at

    def perturb(self, problem):
        self._calls += 1
        if self._calls == self._at:
            raise self._error("broken")
        return problem.images


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_before_its_first_record_leaves_nothing(tmp_path, error):
    results = tmp_path / "results"
    with pytest.raises((error, SystemExit)):
        run(results, Fails(error, 1), callbacks=[RunFolder(str(results)), ImageWriter(), TransferMetrics()])
    assert not results.exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_later_keeps_what_was_finished_and_goes_on(tmp_path, error):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), ImageLogger(5), TransferMetrics()]

    with pytest.raises((error, SystemExit)):
        run(tmp_path, Fails(error, 2), callbacks=callbacks())
    records = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}
    assert len(records) == 2
    second = callbacks()
    run(tmp_path, Fails(error, 0), callbacks=second)
    assert second[-1].rows[0]["images"] == 5
    assert "partial" not in second[-1].rows[0]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "records").iterdir()}
    assert len(kept) == 5
    assert {name: kept[name] for name in records} == records, "no image is attacked twice"
    shown = {tag for file in (tmp_path / "mine").glob("events.*") for tag in events(file).Tags()["images"]}
    assert shown == {f"images/scene_{index:06d}" for index in range(5)}


def test_a_failing_run_leaves_other_runs_alone(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "first"), TransferMetrics()])
    with pytest.raises(RuntimeError, match="broken"):
        run(tmp_path, Fails(at=1), callbacks=[RunFolder(str(tmp_path)), ImageWriter(), TransferMetrics()])
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert (tmp_path / "first" / "transfer.csv").is_file()


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "another file", "no picture"])
def test_a_damaged_record_is_reported_and_its_image_attacked_again(tmp_path, damage):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    first, second = callbacks(), callbacks()
    run(tmp_path, pgd(steps=2), callbacks=first)
    record = tmp_path / "mine" / "records" / "00000003.record"
    whole, picture = record.read_bytes(), tmp_path / "mine" / "images" / "scene_000003.png"
    if damage == "no picture":
        picture.unlink()
    else:
        flipped = bytes([*whole[:-40], whole[-40] ^ 1, *whole[-39:]])
        other = b"\x89PNG" + bytes(60)
        record.write_bytes({"torn": whole[:-7], "flipped": flipped, "empty": b"", "another file": other}[damage])
    says = "is gone" if damage == "no picture" else "is damaged or was not written to its end"
    with pytest.warns(UserWarning, match=rf"{says}; its image is attacked again"):
        run(tmp_path, pgd(steps=2), callbacks=second)
    assert second[-1].rows == first[-1].rows
    assert picture.is_file()


class Other(SegmentationDataset):
    """The scenes in another order, or with other masks."""

    classes = SCENES.classes

    def __init__(self, change):
        self.change = change

    def __len__(self):
        return 5

    def __getitem__(self, index):
        scene = SCENES[index]
        if self.change == "masks" and index == 2:
            return Scene(scene.image, np.roll(scene.mask, 1), scene.name)
        return SCENES[[1, 0, 2, 3, 4][index]] if self.change == "order" else scene


@pytest.mark.parametrize(("change", "again"), [("masks", {2}), ("order", {0, 1}), ("nothing", set())])
def test_photos_that_have_changed_are_attacked_again(tmp_path, change, again):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "mine" / "records").iterdir()}
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second, dataset=Other(change))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "mine" / "records").iterdir()}
    assert {int(name[:8]) for name in after if after[name] != before[name]} == again
    new = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=2), dataset=Other(change), callbacks=[RunFolder(str(tmp_path), "new"), ImageWriter(), new])
    if change != "order":  # a photo's place in the data set is its seed
        assert second[-1].rows == new.rows


def test_what_a_killed_process_was_writing_is_no_record(tmp_path):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    record = tmp_path / "mine" / "records" / "00000003.record"
    unfinished = record.rename(record.with_name(".99.unfinished.00000003.record"))
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second)
    assert record.is_file()
    assert not unfinished.exists()
    assert second[-1].rows[0]["images"] == 5


def test_one_data_module_serves_several_runs(tmp_path):
    data = SegmentationDataModule(SCENES, batch_size=2)
    for number in range(2):
        metrics = TransferMetrics(str(tmp_path / "plain"), table=False)
        named = [RunFolder(str(tmp_path), "mine"), TransferMetrics(table=False)]
        for callbacks in (named, [metrics]):
            quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
            trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, **quiet)
            trainer.predict(AttackModule(model(), NoAttack()), datamodule=data, return_predictions=False)
        assert metrics.rows[0]["images"] == 5, number
        assert "partial" not in metrics.rows[0]


def test_networks_that_differ_in_settings_only_are_others():
    first, second = model(1), model(2)
    ensembles = [Ensemble([first, second], [1, 3]), Ensemble([first, second], [3, 1]),
                 Ensemble([first, second], [3, 1], by="softmax")]  # fmt: skip
    wide = SegmentationModel(deepcopy(first.network), mean=(0.5,) * 3, std=(0.25,) * 3, stride=8, name="net")
    prints = [fingerprint(network) for network in (*ensembles, first, second, wide)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(model(1)) == fingerprint(first.train())


def test_a_folder_in_use_is_refused(tmp_path):
    """The holder is another process: locks belong to files that are open, so one process would do too."""
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    lock = (tmp_path / "mine" / ".lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write("pid 12 on nowhere")
    lock.flush()
    with pytest.raises(RunError, match=r"mine' is in use by another run \(pid 12 on nowhere\); wait for it or stop it"):
        run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    lock.close()
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])


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


def test_no_images_logged(tmp_path):
    run(tmp_path, NoAttack(), count=0)
    assert events(tmp_path / "no_attack_source" / "version_0").Tags()["images"] == []
