"""Photos that cannot be used: found before the run, or while the first ones are attacked; `data.check`."""

import threading
import time
import warnings

import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer

from lightning_attack.data import SegmentationDataModule, datamodule
from lightning_attack.data.base import DataError, Scene, SegmentationDataset
from lightning_attack.data.photo_check import SAMPLE, CheckAhead


class Many(SegmentationDataset):
    """Grey photos, of which one may have a mask of another size."""

    classes = ("nothing", "something")

    def __init__(self, count, broken=None, concurrent=True, drawn=False):
        self.count, self.broken = count, broken
        self.concurrent, self.drawn = concurrent, drawn
        self.read, self.readers = [], set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        self.readers.add(threading.current_thread().name)
        side = 3 if index == self.broken else 2
        mask = np.arange(side * side, dtype=np.uint8).reshape(side, side) % 2
        return Scene(np.full((2, 2, 3), 128, np.uint8), mask, f"{index:05d}")


class Slow(LightningModule):
    """Stands for an attack, which takes longer than reading."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.attacked = []

    def predict_step(self, batch, index):
        self.attacked += batch["index"].tolist()
        time.sleep(0.002)


def predict(data):
    module = Slow()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.predict(module, datamodule=data, return_predictions=False)
        finally:
            assert not [one for one in threading.enumerate() if one.name == "photo check"]
    return module.attacked


def test_what_is_read_before_the_run():
    photos = Many(300)
    SegmentationDataModule(photos).check()
    assert sorted(photos.read) == [*range(300)]
    photos = Many(300)
    SegmentationDataModule(photos, check="none").check()
    assert photos.read == []
    SegmentationDataModule(photos, check="ahead").check()
    assert len(photos.read) == SAMPLE
    assert {0, 299} <= {*photos.read}
    photos = Many(2001)
    SegmentationDataModule(photos).check()
    assert len(photos.read) == SAMPLE
    with pytest.raises(ValueError, match="check='later': must be one of before, ahead, none, or null"):
        SegmentationDataModule(photos, check="later")


def test_a_broken_photo_is_found_ahead_of_the_attack():
    photos = Many(2000, broken=1999)
    data = SegmentationDataModule(photos, check="ahead")
    with pytest.raises(DataError, match="mask of '01999' is 3x3"):
        predict(data)
    assert len(photos.read) > 1999
    # Photos that are done are not looked at again.
    photos = Many(200, broken=7)
    data = SegmentationDataModule(photos, check="ahead")
    data.skip(range(150))
    assert predict(data) == [*range(150, 200)]
    assert sorted(photos.read) == sorted([*range(150, 200)] * 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_with_one_reader_at_a_time_is_read_before_the_run(workers, monkeypatch):
    """In the background the check would read beside the loader; a file that a worker inherits has one position, too."""
    photos = Many(200, broken=150, concurrent=False)
    data = SegmentationDataModule(photos, check="ahead", num_workers=workers, limit=150)
    data.check()
    assert photos.read == [*range(150)]
    assert predict(data) == [*range(150)]
    assert photos.readers == {threading.main_thread().name}
    with pytest.raises(DataError, match="mask of '00150' is 3x3"):
        SegmentationDataModule(photos, check="ahead").check()
    said = []
    monkeypatch.setattr(datamodule, "rank_zero_info", said.append)
    SegmentationDataModule(Many(2001, concurrent=False)).check()
    assert said == ["2001 photos are read once before the run (--data.check=none: they are not)"]
    drawn = Many(200, concurrent=False, drawn=True)  # nothing is read there
    SegmentationDataModule(drawn, check="ahead").check()
    assert len(drawn.read) == SAMPLE


def test_what_is_found_after_the_last_batch_is_said():
    def fail(number):
        raise DataError("broken")

    check, _ = SegmentationDataModule(Many(1), check="ahead")._photo_check([0], 2)
    for end, said in (
        (CheckAhead.close, pytest.warns(UserWarning, match="broken")),
        (CheckAhead.raise_found, pytest.raises(DataError, match="broken")),
    ):
        late = CheckAhead(check, fail, 1)
        late._thread.start()
        late._thread.join()
        with said:
            end(late)
