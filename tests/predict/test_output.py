"""`AttackOutput` as `Trainer.predict` returns it."""

from dataclasses import fields, replace

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_attack.attacks import pgd
from lightning_attack.data import DataError, SegmentationDataModule, SegmentationDataset, SyntheticScenes
from lightning_attack.predict import AttackModule, AttackOutput
from lightning_attack.predict.output import merge

SCENES = SyntheticScenes(3, size=32)


class Unreadable(SegmentationDataset):
    """Photos of which none can be read but the first."""

    classes = SCENES.classes

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index:
            raise DataError(f"photo {index} is broken")
        return SCENES[index]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(3, 8, 3, padding=1)


def run(dataset=SCENES, targets=None, on_error="raise", **arguments):
    module = AttackModule(network(), pgd(steps=3), targets or {"b": network(1)}, on_error=on_error, **arguments)
    data = SegmentationDataModule(dataset, batch_size=2, on_error=on_error)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **options)
    return trainer.predict(module, datamodule=data, return_predictions=True), list(data.predict_dataloader())


@pytest.mark.parametrize("arguments", [{}, {"curve_every": 1, "target_labels": 3}, {"exact": True, "curve_every": 2}])
def test_every_field_of_a_real_run(arguments):
    outputs, batches = run(**arguments)
    points = len(range(arguments.get("curve_every", 0), 3, arguments.get("curve_every", 1))) + 1
    for output, batch in zip(outputs, batches, strict=True):
        count = len(batch["name"])
        assert isinstance(output, AttackOutput)
        assert len(output) == count
        assert (output.name, output.digest) == (batch["name"], batch["digest"])
        assert torch.equal(output.index, batch["index"])
        assert torch.equal(output.image, batch["image"])
        assert torch.equal(output.labels, batch["mask"])
        assert (output.adversarial - output.image).abs().max() <= 8 / 255 + 1e-6
        for classes in (classes for both in output.preds.values() for classes in both.values()):
            assert (classes.shape, classes.dtype) == (output.labels.shape, torch.int64)
        assert [*output.preds] == ["conv2d", "b"]
        assert (output.region, output.skipped, output.failed) == (None, [], [{}] * count)
        if "target_labels" in arguments:
            assert torch.equal(output.target_labels == 255, output.labels == 255)
            assert output.target_labels[output.labels != 255].unique().tolist() == [3]
        else:
            assert output.target_labels is None
        if "curve_every" in arguments:
            assert output.curve.shape == (count, 2, points, 8, 8)
            assert output.curve.sum((2, 3, 4)).tolist() == [
                [points * int((mask != 255).sum())] * 2 for mask in batch["mask"]
            ]
        else:
            assert output.curve is None
        assert [figures["loss"].shape for figures in output.figures] == [(count,)] * 3
        assert output.passes == {"forward": 3, "backward": 3}
        assert output.seconds > 0
        assert output.scoring > 0
        assert output.memory is None or output.memory >= 0


def test_images_that_are_left_out_leave_an_empty_output():
    first, second = run(Unreadable(), on_error="skip")[0]
    assert (len(first), first.name) == (1, ["scene_000000"])
    assert first.skipped == [(1, "photo 1", "photo 1 is broken")]
    assert len(second) == 0
    assert second.skipped == [(2, "photo 2", "photo 2 is broken")]
    assert second.image.shape == second.adversarial.shape == (0, 3, 0, 0)
    assert [*second.preds] == [*first.preds]


def test_parts_become_a_whole():
    whole, _ = run()
    one, two = whole[0], whole[1]
    one, two = replace(one, memory=5.0, seconds=1.0), replace(two, memory=7.0, seconds=2.0, figures=two.figures[:2])
    merged = merge([one, two])
    assert (len(merged), merged.seconds, merged.memory) == (3, 3.0, 7.0)
    assert merged.name == [*one.name, *two.name]
    assert torch.equal(merged.adversarial, torch.cat([one.adversarial, two.adversarial]))
    assert torch.equal(merged.figures[1]["loss"], torch.cat([one.figures[1]["loss"], two.figures[1]["loss"]]))
    assert merged.figures[2]["loss"].isnan().tolist() == [False, False, True]
    assert merge([one]) is one
    assert {field.name for field in fields(merged)} == set(vars(merged))


def test_on_error_is_checked():
    with pytest.raises(ValueError, match="on_error='ignore': must be one of raise, skip"):
        AttackModule(network(), pgd(), on_error="ignore")
    with pytest.raises(ValueError, match="on_error='ignore': must be one of raise, skip"):
        SegmentationDataModule(SCENES, on_error="ignore")
