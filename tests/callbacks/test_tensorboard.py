"""What TensorBoard is told of a run, by `TransferMetrics` and `Overview`."""

import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.callbacks.small_runs import SCENES, events
from tests.callbacks.test_transfer_metrics import miou_by_hand


def test_tensorboard_scalars(finished):
    folder, metrics, networks = finished
    accumulator = events(folder)
    for row in metrics.rows:
        for tag, column in (("clean", "clean_miou"), ("adversarial", "adversarial_miou"), ("drop", "drop")):
            (event,) = accumulator.Scalars(f"{tag}/miou/{row['target']}")
            assert event.value == pytest.approx(row[column], abs=1e-6)
    curves = dict(metrics.summary["curves"])
    curves["fooled"] = [1 - value for value in curves["p_t"]]
    curves["stage_two_share"] = [value / 5 for value in curves["stage_two"]]
    for name, curve in curves.items():
        logged = {event.step: event.value for event in accumulator.Scalars(f"steps/{name}")}
        assert logged == pytest.approx({step: value for step, value in enumerate(curve) if value is not None}, abs=1e-5)
    # Over the images: the first three by hand, and all at the end.
    saved = [np.array(Image.open(folder / "images" / f"{scene.name}.png")) for scene in SCENES]
    for row, kind in zip(metrics.rows, ("transfer", "white_box"), strict=True):
        events_of = accumulator.Scalars(f"over_images/{kind}/{row['target']}")
        assert [event.step for event in events_of] == [20, 40, 60, 80, 100]
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
    other, twin = metrics.rows
    assert sorted(values)[:5] == ["attack", "eps", "miou_transfer", "miou_white_box", "source"]
    assert values == {
        "miou_transfer": other["adversarial_miou"], "miou_white_box": twin["adversarial_miou"],
        "attack": "transegpgd", "source": "source", "eps": 8, "step_size": 2.55, "steps": 6, "trial/norm": "Linf",
        "trial/random_start": False, "trial/seed": 0, "trial/engine": "auto", "trial/precision": "float32",
        "trial/quantize": True, "trial/images": 5,
    }  # fmt: skip
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
        "adversarial mIoU over percent of the images": {
            "over_images/white_box/twin",
            "over_images/transfer/other",
        },
        "clean mIoU over percent of the images": {"over_images/clean/twin", "over_images/clean/other"},
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
        for cell, entry in zip(row.strip("| ").split(" | ")[1:], metrics.summary["targets"], strict=True):
            pair = [entry["clean_iou"][name], entry["adversarial_iou"][name]]
            assert cell == " → ".join("-" if value is None else f"{100 * value:.2f}" for value in pair)
    assert text(accumulator, "run/command") == "    a b"
