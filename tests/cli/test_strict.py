"""`--strict`: what is warned about else is an error, as early as it is known."""

import json

import pytest
import yaml
from PIL import Image

from lightning_attack.data import SyntheticScenes
from lightning_attack.study.plan import Study, cells

SCENES = ["--model.attack=no_attack", "--model.targets={}", "--data.dataset=SyntheticScenes", "--data.dataset.count=4",
          "--data.dataset.size=64"]  # fmt: skip
GOOD = {"class_path": "TrainedModel", "init_args": {"file": "embedded:scenes_fpn"}}


def mapped(*groups):
    init_args = {"network": GOOD, "groups": [list(group) for group in groups]}
    return {"model": {"source": {"class_path": "ClassMap", "init_args": init_args}}}


def test_what_is_known_before_the_first_photo(predict, tmp_path, capsys):
    random = {"arch": "fpn", "encoder_name": "tu-test_resnet", "num_classes": 8}
    source = {"model": {"source": {"class_path": "SMPModel", "init_args": random}}}
    assert predict(source, *SCENES, "--strict") == 2
    said = capsys.readouterr().err
    assert "error: 'fpn_test_resnet' has random weights" in said
    assert "Set weights of SMPModel to a file of trained ones\nthis is an error because of --strict" in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("strict", ["--strict", "--strict=true"])
def test_what_is_known_after_the_last_photo_is_written_and_refused(strict, predict, tmp_path, capsys):
    blind = mapped([0], [1], [2], [], [4], [5], [6], [7])
    assert predict(blind, *SCENES, strict, "--run_name=mine") == 2
    assert "error: no network predicts 'triangle'" in capsys.readouterr().err
    summary = json.loads((tmp_path / "results/mine/transfer.json").read_text())
    assert [one["kind"] for one in summary["warnings"]] == ["never_predicted"]
    assert yaml.safe_load((tmp_path / "results/mine/config.yaml").read_text())["strict"] is True
    # It is no setting that decides on results: the same run may go on without it.
    assert predict(blind, *SCENES, "--run_name=mine") == 0
    shown = capsys.readouterr().out
    assert "Warning: no network predicts 'triangle'" in shown


def test_good_runs_pass(predict, capsys):
    assert predict({"model": {"source": GOOD}}, *SCENES, "--strict") == 0
    assert "Warning" not in capsys.readouterr().out


def test_photos_without_masks(predict, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(SyntheticScenes(1, size=64)[0].image).save(tmp_path / "photos" / "a.png")
    words = ["--data.dataset=ImageFolder", f"--data.dataset.root={tmp_path / 'photos'}", *SCENES[:2]]
    assert predict({"model": {"source": GOOD}}, *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "labels: clean prediction of the source" in said
    assert "Warning" not in said
    assert predict({"model": {"source": GOOD}}, *words, "--strict") == 2
    assert "stands for the labels" in capsys.readouterr().err


def test_a_study_hands_it_on():
    study = Study({"x": GOOD}, {"a": {"class_path": "NoAttack"}}, ["x"])
    (cell,) = cells(study)
    assert "--strict=true" not in cell.words(study)
    study.strict = True
    assert "--strict=true" in cell.words(study)
