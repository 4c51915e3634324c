"""Curves over the steps: each point is what a run with so many steps would have found."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_attack.attacks import IterativeAttack, Linf, bim, pgd
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.callbacks import RunFolder, TransferMetrics
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.step_curve import StepCurve
from lightning_attack.runs.store import RecordStore
from tests.runs.kept import drop, packed

SCENES = SyntheticScenes(5, size=32)


class Net(nn.Module):
    """A small network; at will it fails on the clean look of a photo or where many images come at once."""

    def __init__(self, seed=0, most=99, fails_at=None):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.most, self.fails_at, self.calls = most, fails_at, 0

    def forward(self, x):
        self.calls += 1
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 7 GiB")
        if self.calls == self.fails_at:
            raise RuntimeError("my kernel broke")
        return self.layers(4 * x - 2)


def network(seed=0, name="net", **faults):
    return SegmentationModel(Net(seed, **faults), num_classes=8, name=name)


def run(folder, attack, batch_size=2, source=None, other=None, on_error="raise", **arguments):
    callbacks = [RunFolder(str(folder), "run"), metrics := TransferMetrics(table=False)]
    targets = {"other": other or network(1)}
    module = AttackModule(source or network(name="source"), attack, targets, on_error=on_error, **arguments)
    data = SegmentationDataModule(SCENES, batch_size=batch_size)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with torch.backends.mkldnn.flags(enabled=False):  # its kernels for other batch sizes round differently
        trainer.predict(module, datamodule=data, return_predictions=False)
    return metrics.summary


def test_each_point_is_a_run_of_its_own(tmp_path):
    report = run(tmp_path / "curve", pgd(steps=5), curve_every=2)
    curve = report["step_curve"]
    assert curve["steps"] == [2, 4, 5]
    for place, steps in enumerate(curve["steps"]):
        for row in run(tmp_path / str(steps), pgd(steps=steps))["targets"]:
            assert curve["targets"][row["target"]][place] == row["adversarial_miou"]
    assert len(set(curve["targets"]["source"])) == 3

    events = EventAccumulator(str(tmp_path / "curve" / "run")).Reload()
    for target, points in curve["targets"].items():
        logged = [(event.step, event.value) for event in events.Scalars(f"curve/miou/{target}")]
        assert logged == [(step, pytest.approx(value)) for step, value in zip(curve["steps"], points, strict=True)]


def test_a_curve_changes_nothing_else(tmp_path):
    with_curve = run(tmp_path / "a", pgd(steps=3), curve_every=1, quantize=False)
    without = run(tmp_path / "b", pgd(steps=3), quantize=False)
    assert "step_curve" not in without
    for report in (with_curve, without):
        (
            report.pop("step_curve", None),
            report.pop("date"),
            report.pop("seconds"),
            report.pop("peak_memory_mb_per_image"),
        )
    assert with_curve == without  # passes of the source, too
    records = [list(RecordStore(tmp_path / name / "run")) for name in "ab"]
    assert [record.curve is None for record in records[1]] == [True] * 5
    for one, other in zip(*records, strict=True):
        assert (one.counts == other.counts).all()
        assert (one.clean.dense() == other.clean.dense()).all()
        assert (one.curve[:, -1] == one.counts[:, 0, 1]).all()


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize(
    "arguments", [{"batch_size": 5}, {"exact": True, "batch_size": 4}, {"source": "short", "batch_size": 5}], ids=str
)
def test_batches_do_not_show(arguments, tmp_path):
    expected = run(tmp_path / "expected", pgd(steps=4), batch_size=1, curve_every=1)["step_curve"]
    if "source" in arguments:  # memory for three images at a time
        arguments = arguments | {"source": network(name="source", most=3)}
    assert run(tmp_path / "other", pgd(steps=4), curve_every=1, **arguments)["step_curve"] == expected


def test_a_run_that_goes_on(tmp_path):
    whole = run(tmp_path, bim(steps=3), curve_every=2)["step_curve"]
    before = packed(tmp_path / "run")[1]
    drop(tmp_path / "run", 3)
    assert run(tmp_path, bim(steps=3), batch_size=1, curve_every=2)["step_curve"] == whole
    assert packed(tmp_path / "run")[1] == before
    with pytest.raises(OSError, match=r"model.curve: \[2, 3\] before, \[1, 2, 3\] now"):
        run(tmp_path, bim(steps=3), curve_every=1)


def test_a_target_that_fails_on_a_single_step_counts_nowhere(tmp_path):
    """Its looks: the probe, then for each batch clean, final, steps 1 and 2; it fails at step 1 of the second batch."""
    other = network(1, fails_at=1 + 4 + 3)
    report = run(tmp_path, bim(steps=3), other=other, on_error="skip", curve_every=1)
    assert [row["images"] for row in report["targets"]] == [5, 3]
    assert [one["name"] for one in report["failed"]] == ["scene_000002", "scene_000003"]
    store = RecordStore(tmp_path / "run")
    left, (failed,) = list(store.read([0, 1, 4])), store.read([2])
    assert failed.curve[1].sum() == failed.counts[1].sum() == failed.clean.dense()[1].sum() == 0
    assert failed.curve[0].sum() > 0
    assert sum(record.curve[1, -1].sum() for record in left) > 0
    assert report["step_curve"]["targets"]["other"][-1] == report["targets"][1]["adversarial_miou"]


class Silent(IterativeAttack):
    """A loop of somebody's own that tells nobody."""

    def perturb(self, problem):
        return problem.images


def test_curves_that_cannot_be(tmp_path):
    for every in (0, -3):
        with pytest.raises(AttackError, match=f"curve_every={every}: must be 1 or more"):
            StepCurve.of(pgd(), every)
    with pytest.raises(AttackError, match="the attack did not show its images after step 1"):
        run(tmp_path, Silent(CrossEntropy(), Linf(), steps=2), curve_every=1)


def test_from_the_command_line(predict, tmp_path, capsys):
    small = ("--data.limit=2", "--model.targets=null", "--run_name=a")
    assert predict(*small, "--curve", "steps", "--model.attack.steps=21") == 0
    report = json.loads((tmp_path / "results" / "a" / "transfer.json").read_text())
    assert report["step_curve"]["steps"] == [*range(2, 21, 2), 21]
    (points,) = report["step_curve"]["targets"].values()
    assert points[-1] == report["targets"][0]["adversarial_miou"]
    assert points[-1] < points[0] - 0.1
    for words, says in (
        (("--curve=eps",), "curve: expected 'steps'; given: eps"),
        (
            ("--curve=steps", "--model.windows.size=64", "--model.windows.attack=window"),
            "set model.windows.attack=image (or leave out --curve",
        ),
    ):
        assert predict(*small, *words) == 2
        answer = capsys.readouterr().err.strip()
        assert says in answer
        assert len(answer.splitlines()) <= 2
