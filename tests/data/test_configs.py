"""The files of `configs/data` fit the data sets, read as the command line reads them, on trees made here."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_attack.data import SegmentationDataModule
from tests.data.trees import LAYOUTS

FILES = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))
KINDS = {
    "ade20k": "ade20k", "camvid": "camvid", "cityscapes": "cityscapes", "cityscapes_paper": "cityscapes",
    "voc_paper": "voc", "voc_train_aug": "voc",
}  # fmt: skip


def test_every_file_is_here():
    assert [file.stem for file in FILES] == sorted(KINDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_makes_its_data(file, tmp_path, monkeypatch):
    config = yaml.safe_load(file.read_text())
    # The papers' protocols have windows for the networks and nothing to learn from; common/test_windows.py runs them.
    protocol = file.stem.endswith("_paper")
    assert set(config) == ({"data", "model"} if protocol else {"data"})
    layout = LAYOUTS[KINDS[file.stem]]
    place = config["data"]["dataset"]["init_args"]["root"]
    assert place == "data" or place.startswith("data/")
    layout.make(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("-c", action="config")
    parser.add_class_arguments(SegmentationDataModule, "data")
    Path("data.yaml").write_text(yaml.safe_dump({"data": config["data"]}))
    data = parser.instantiate(parser.parse_args(["-c", "data.yaml"])).data
    data.check(num_classes=layout.classes)
    data.check_training(layout.classes)
    assert len(data.classes) == len(data.trained_classes) == layout.classes
    data.batch_size = 1
    assert list(data.val_dataloader())
    if protocol:
        return
    assert len(data.train) >= 1
    crop = config["data"]["augment"]["init_args"]["crop"]
    (shape,) = {tuple(batch["mask"].shape[1:]) for batch in data.train_dataloader()}
    assert shape == (tuple(crop) if isinstance(crop, list) else (crop, crop))
