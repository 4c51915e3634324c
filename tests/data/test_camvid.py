"""CamVid: every value, and which folders are splits."""

import numpy as np
import pytest

from lightning_attack.data import CamVid, DataError
from tests.data.trees import LAYOUTS, camvid, photo, png

LAYOUT = LAYOUTS["camvid"]


def test_every_value(tmp_path):
    camvid(tmp_path)
    photo(tmp_path / LAYOUT.photo, size=(1, 13))
    png(tmp_path / LAYOUT.mask, [[*range(12), 255]])
    assert CamVid(str(tmp_path))[0].mask.tolist() == [[*range(11), 255, 255]]
    assert CamVid.classes[0] == "Sky"
    assert CamVid.classes[3] == "Road"
    assert CamVid.classes[10] == "Bicyclist"


def test_a_split_has_label_maps_beside_it(tmp_path):
    camvid(tmp_path)
    (tmp_path / "extra").mkdir()
    assert len(CamVid(str(tmp_path), split="test")) == 1
    for wrong in ("extra", "valannot"):
        with pytest.raises(DataError, match=f"no split '{wrong}' in '.*'; there are: test, train, val"):
            CamVid(str(tmp_path), split=wrong)


def test_original_release_is_told_apart(tmp_path):
    photo(tmp_path / "701_StillsRaw_full" / "0016E5_00001.png")
    png(tmp_path / "LabeledApproved_full" / "0016E5_00001_L.png", np.zeros((4, 6)))
    with pytest.raises(DataError, match="the original release with its colours for 32 classes does not fit"):
        CamVid(str(tmp_path))
