"""Real photos and real networks, where they lie beside the repository."""

import csv
import json
import sys
from pathlib import Path

import pytest

from lightning_attack.cli.main import main
from lightning_attack.study.plan import cells
from tests.readme import presets_table

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CONFIG = ROOT / "tests" / "configs" / "shared_voc.yaml"

pytestmark = pytest.mark.skipif(not (SHARED / "zoo").is_dir(), reason="no real photos and networks in ../shared")


@pytest.fixture
def predict(monkeypatch, tmp_path):
    def predict(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["main.py"])
        assert main(["predict", "-c", str(CONFIG), *arguments, f"--results={tmp_path}", "--run_name=run"]) == 0
        return tmp_path / "run"

    return predict


def test_clean_figures_are_those_that_the_networks_came_with(predict, tmp_path):
    """Every eighth photo at its own size; both definitions of mIoU and the accuracy were measured by others."""
    small = tmp_path / "small.yaml"
    small.write_text(
        "model: {targets: {other: {class_path: ExportedModel, "
        "init_args: {path: ../shared/zoo/deeplabv3_mnv2_voc_257.pt2}}}}"
    )
    folder = predict(
        "-c", str(small), "--model.attack=configs/attacks/no_attack.yaml",
        "--data.size=null", "--data.every=8", "--data.limit=null", "--data.batch_size=1",
    )  # fmt: skip
    report = json.loads((folder / "transfer.json").read_text())
    figures = {
        row["target"]: (row["clean_miou"], row["clean_miou_union"], row["clean_accuracy"]) for row in report["targets"]
    }
    assert report["images"] == 48
    assert report["warnings"] == []
    assert figures["deeplabv3_mnv2_dm05_voc_257"] == pytest.approx((0.6857, 0.4800, 0.9232), abs=5e-4)
    assert figures["other"] == pytest.approx((0.7715, 0.4500, 0.9320), abs=5e-4)
    assert report["perturbation"] == {"linf": 0, "linf_median": 0, "l2": 0, "psnr": None}


def test_the_source_among_the_targets_is_one_row(predict):
    folder = predict("--data.limit=1", "--model.attack.steps=2")
    rows = list(csv.DictReader((folder / "transfer.csv").open()))
    assert [row["white_box"] for row in rows] == ["True", "False", "False", "False"]
    assert rows[0]["source"] == rows[0]["target"]
    assert float(rows[0]["adversarial_miou"]) < float(rows[0]["clean_miou"])


def test_the_study_of_the_table_of_presets(monkeypatch):
    """Attacks on single networks and on ensembles apart; what is run is seen in tests/readme/test_presets_table.py."""
    monkeypatch.chdir(ROOT)
    single, ensembles = presets_table.read_plan(presets_table.CONFIG, ["pgd", "mi_fgsm", "svre"], 1)[0]
    assert [cell.name for cell in cells(single)][:1] == ["pgd_mnv2_half"]
    assert [cell.name for cell in cells(ensembles)][:1] == ["svre_mnv2_both"]
    assert {"mnv2_half", "mnv2"} <= {*single.targets}
