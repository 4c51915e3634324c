"""The command of the README's table of all presets, on the embedded networks."""

import re

import pytest
import torch
import yaml

from lightning_attack.attacks import image_seeds, mi_fgsm, transegpgd_mi
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import TrainedModel, freeze
from tests.readme import presets_table


def embedded(name):
    return {"class_path": "TrainedModel", "init_args": {"file": f"embedded:scenes_{name}"}}


NETWORKS = {"fpn": embedded("fpn"), "segformer": embedded("segformer")}
STUDY = {
    "networks": {**NETWORKS, "both": {"class_path": "Ensemble", "init_args": {"members": [*NETWORKS.values()]}},
                 "deeplab": embedded("deeplabv3plus"),
                 "gone": {"class_path": "TrainedModel", "init_args": {"file": "no"}}},
    "sources": ["fpn", "both", "gone"], "targets": ["fpn", "deeplab", "gone"],
    "families": {"fpn": "a", "segformer": "a", "both": "a", "deeplab": "b", "gone": "b"},
    "data": {"dataset": {"class_path": "SyntheticScenes", "init_args": {"count": 6, "size": 48}}, "batch_size": 8},
    "model": {"engine": "eager"}, "trainer": {"logger": False, "accelerator": "cpu"}, "images": "none",
}  # fmt: skip


def test_rows_are_run_once_and_shown_by_group(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(presets_table.ROOT)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    words = [
        "fgsm",
        "mi_fgsm",
        "svre",
        "transegpgd_mi",
        "transegpgd_mi_even",
        "--limit=5",
        f"--study={file}",
        f"--results={tmp_path / 'runs'}",
    ]
    presets_table.run(words)
    first = capsys.readouterr()
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("records/*")}
    assert sorted({path.parts[-3] for path in records}) == [
        "fgsm_fpn", "mi_fgsm_fpn", "svre_both", "transegpgd_mi_even_fpn", "transegpgd_mi_fpn"
    ]  # fmt: skip
    assert "left out, as their files are missing: gone" in first.err
    presets_table.run([*words, "--only-table"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("records/*")} == records
    table, again = ([line for line in said.splitlines() if line.startswith("| ")]
                    for said in (first.out, capsys.readouterr().out))  # fmt: skip
    assert table == again
    groups = [line.split("**")[1] for line in table if "**" in line]
    assert groups == [presets_table.GROUPS[name] for name in ("white_box", "gradients", "transegpgd", "ensembles")]
    rows = {row[0].strip("| `"): row for row in (line.split(" | ") for line in table) if row[0].startswith("| `")}
    passes = {"fgsm": "1", "mi_fgsm": "10", "transegpgd_mi": "10", "svre": "8"}
    assert {name: row[1] for name, row in rows.items()} == passes
    assert all(row[-1] == "8 |" for row in rows.values()), "all use the whole budget"
    miou, low, high = map(float, re.findall(r"[\d.]+", rows["mi_fgsm"][3]))
    assert low < miou < high
    assert rows["mi_fgsm"][4] == ""
    gap = float(rows["fgsm"][3].split()[0]) - miou
    assert float(rows["fgsm"][4].split()[0]) == pytest.approx(gap, abs=0.11)
    techniques, weighted, even, difference = table[-1].strip("| ").split(" | ")
    assert techniques == "MI"
    assert weighted == rows["transegpgd_mi"][3]
    assert float(difference.split()[0]) == pytest.approx(float(weighted.split()[0]) - float(even.split()[0]), abs=0.11)
    readme = presets_table.README.read_text()
    with pytest.raises(SystemExit, match="must be complete"):
        presets_table.run([*words[5:], "--only-table", "--write"])
    assert presets_table.README.read_text() == readme
    page = tmp_path / "README.md"
    page.write_text("# Attacks\n\n<!-- presets-table -->\nold\n<!-- /presets-table -->\n")
    monkeypatch.setattr(presets_table, "README", page)
    presets_table.write(table[:-2], table[-2:], 5)
    shown = page.read_text()
    assert "\nold\n" not in shown
    assert f"{presets_table.about(5)}\n{table[0]}" in shown
    assert " 5 photos of PASCAL VOC val" in shown
    assert shown.endswith(f"{table[-1]}\n<!-- /presets-table -->\n")


def test_even_weights_are_pgd_with_the_same_technique():
    """The attacks beside TranSegPGD are those of the presets in which momentum alone is added to PGD."""
    even, plain = ({**presets_table.settings(row)["init_args"]} for row in ("transegpgd_mi_even", "mi_fgsm"))
    network = freeze(TrainedModel("embedded:scenes_fpn"))
    batch = next(iter(SegmentationDataModule(SyntheticScenes(2, size=32), batch_size=2).predict_dataloader()))
    weighted, unweighted = (
        make(**{key: value for key, value in settings.items() if key not in ("display_name", "switch")})
        for make, settings in ((transegpgd_mi, even), (mi_fgsm, {**plain, "random_start": even["random_start"]}))
    )
    found = [attack(network, batch["image"], batch["mask"], image_seeds(0, batch["index"]))
             for attack in (weighted, unweighted)]  # fmt: skip
    assert torch.equal(*found)


def test_settings_keep_the_length_of_the_way():
    """0.1 in all, as ten steps of 0.01, unless the radius is shorter than a step."""
    settings = {
        row: presets_table.settings(row).get("init_args", {})
        for row in ("pgd", "pgn", "anda", "ni_fgsm", "vni_fgsm", "fgsm")
    }
    assert (settings["pgd"]["steps"], settings["pgd"]["step_size"]) == (10, 0.01)
    assert (settings["pgn"]["steps"], settings["pgn"]["step_size"]) == (5, 0.02)
    assert (settings["anda"]["steps"], settings["anda"]["step_size"]) == (2, 8 / 255)
    assert (settings["ni_fgsm"]["steps"], settings["ni_fgsm"]["step_size"]) == (10, None)
    assert (settings["vni_fgsm"]["steps"], settings["vni_fgsm"]["step_size"]) == (5, pytest.approx(1.6 / 255))
    assert (settings["fgsm"]["steps"], settings["fgsm"]["step_size"]) == (1, None)
