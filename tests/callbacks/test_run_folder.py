"""Folders of runs: who may have one, what a run finds there when it goes on, and what a failed one leaves."""

import json
import os
import warnings
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch import nn

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import GracefulStop, ImageLogger, ImageWriter, Overview, RunFolder, TransferMetrics
from lightning_attack.data import Scene, SegmentationDataModule, SegmentationDataset
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs import RunError
from lightning_attack.runs.opening import Place, open_run
from tests.callbacks.small_runs import SCENES, events, model, run, strict_json
from tests.processes import clean_processes
from tests.runs.kept import drop, frame_of, packed


def test_each_run_has_a_folder_of_its_own(tmp_path):
    for number in range(2):
        run(tmp_path, NoAttack())
        assert (tmp_path / "no_attack_source" / f"version_{number}" / "transfer.csv").is_file()


def test_a_finished_run_of_the_same_name_is_not_attacked_again(tmp_path):
    first, second = TransferMetrics(), TransferMetrics()
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), first])
    content = packed(tmp_path / "mine")

    class Never(NoAttack):
        def perturb(self, problem):
            raise AssertionError("nothing is left to attack")

    Never.__name__ = "NoAttack"  # what settings say of it
    run(tmp_path, Never(), callbacks=[RunFolder(str(tmp_path), "mine"), second])
    assert second.rows == first.rows
    assert second.summary["seconds"]["run"] > first.summary["seconds"]["run"] > first.summary["seconds"]["attack"]
    assert packed(tmp_path / "mine") == content


def test_a_home_folder_and_variables_are_replaced_once(tmp_path, monkeypatch):
    """All of a run is in one folder, whose name may have a `$` that means no variable's value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HERE", str(tmp_path / "$HERE"))
    for results, folder in (("~/runs", "home/runs/mine"), ("$HERE/runs", "$HERE/runs/mine")):
        for _ in range(2):
            run(tmp_path, NoAttack(), callbacks=[RunFolder(results, "mine"), ImageWriter(), TransferMetrics()])
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert {"settings.json", "records", "images", "transfer.json"} <= names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["$HERE", "home"]


def test_another_run_of_the_same_name_is_refused(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])
    content = (tmp_path / "mine" / "transfer.json").read_text()
    for change, says in (
        ({"seed": 1}, r"model\.seed: 0 before, 1 now"),
        ({"targets": {"other": model(1)}}, r"model\.targets\.other: not there before, v3:[0-9a-f]{16} now"),
    ):
        with pytest.raises(RunError, match=rf"mine' is a run of other settings; .*--fresh=true(?s:.*){says}"):
            run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()], **change)
    assert (tmp_path / "mine" / "transfer.json").read_text() == content
    (tmp_path / "mine" / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"is no run that could go on \(no readable settings.json\)"):
        run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "mine"), TransferMetrics()])


@pytest.mark.parametrize("form", [3, 4], ids=["of predict", "of study"])
def test_a_run_of_an_earlier_version_goes_on(tmp_path, form):
    """Its hashes of networks depended on what these were called."""

    def again(**change):
        folder, targets = RunFolder(str(tmp_path), "mine"), {"theirs": model(change.pop("weights", 1), "other")}
        run(tmp_path, NoAttack(), callbacks=[folder, TransferMetrics(table=False)], targets=targets, **change)

    again()
    file = tmp_path / "mine" / "settings.json"
    now = json.loads(file.read_text())
    module = AttackModule(model(0, "source"), NoAttack(), {"theirs": model(1, "other")})
    old = json.dumps(now | {"model": [*module.earlier_settings()][form]})
    file.write_text(old)
    for change, says in (({"seed": 1}, "model.seed: 0 before, 1 now"), ({"weights": 2}, "'theirs'")):
        with pytest.raises(RunError, match="is a run of other settings") as error:
            again(**change)
        (line,) = str(error.value).splitlines()[1:]
        assert says in line, "nothing else differs"
        assert file.read_text() == old
    again()
    assert json.loads(file.read_text()) == now, "from now on with the hashes of today"


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
    records = packed(tmp_path / "mine")
    assert len(records) == 2
    second = callbacks()
    run(tmp_path, Fails(error, 0), callbacks=second)
    assert second[-1].rows[0]["images"] == 5
    assert "partial" not in second[-1].rows[0]
    kept = packed(tmp_path / "mine")
    assert len(kept) == 5
    assert {name: kept[name] for name in records} == records, "no image is attacked twice"
    shown = {tag for file in (tmp_path / "mine").glob("events.*") for tag in events(file).Tags()["images"]}
    assert shown == {f"images/scene_{index:06d}" for index in range(5)}


@pytest.mark.parametrize("processes", [1, 2])
def test_other_processes_may_still_write_into_the_folder_of_a_run_that_fails(processes, tmp_path):
    """Without its settings it would be no run that could go on."""
    folder, trainer = RunFolder(str(tmp_path), "mine"), SimpleNamespace(world_size=processes, callbacks=[])
    folder._run = open_run(Place(tmp_path, "title", "mine"), {}, (), None)
    folder.release(trainer, failed=True)
    assert (tmp_path / "mine" / "settings.json").is_file() == (processes > 1)
    open_run(Place(tmp_path, "title", "mine"), {}, (), None).close()


@pytest.mark.parametrize("name", ["..", "a/b"])
def test_a_name_is_one_folder(name):
    with pytest.raises(ValueError, match=rf"run_name='{name}': must be the name of a folder, without '/' or '..'"):
        RunFolder(run_name=name)


def test_a_failing_run_leaves_other_runs_alone(tmp_path):
    run(tmp_path, NoAttack(), callbacks=[RunFolder(str(tmp_path), "first"), TransferMetrics()])
    with pytest.raises(RuntimeError, match="broken"):
        run(tmp_path, Fails(at=1), callbacks=[RunFolder(str(tmp_path)), ImageWriter(), TransferMetrics()])
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert (tmp_path / "first" / "transfer.csv").is_file()


@pytest.mark.parametrize("damage", ["torn", "a byte", "flipped", "head", "zeros", "another file", "no picture"])
def test_a_damaged_record_is_reported_and_its_image_attacked_again(tmp_path, damage):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    first, second = callbacks(), callbacks()
    run(tmp_path, pgd(steps=2), callbacks=first)
    kept, picture = packed(tmp_path / "mine"), tmp_path / "mine" / "images" / "scene_000003.png"
    path, frame = frame_of(tmp_path / "mine", 4 if damage in ("torn", "a byte") else 3)
    whole, end = path.read_bytes(), frame.start + frame.length
    flipped = bytes([*whole[: end - 40], whole[end - 40] ^ 1, *whole[end - 39 :]])
    head = bytes([*whole[: frame.start - 20], whole[frame.start - 20] ^ 1, *whole[frame.start - 19 :]])  # its length
    other = b"\x89PNG" + bytes(60)
    if damage == "no picture":
        picture.unlink()
    else:
        path.write_bytes({"torn": whole[:-7], "a byte": whole[: frame.start - 27], "flipped": flipped, "head": head,
                          "zeros": whole[:end] + bytes(99) + whole[end:], "another file": other}[damage])  # fmt: skip
    says = "is gone" if damage == "no picture" else "is damaged or was not written to its end"
    with pytest.warns(UserWarning, match=rf"{says}; its image is attacked again"):
        run(tmp_path, pgd(steps=2), callbacks=second)
    assert second[-1].rows == first[-1].rows
    assert picture.is_file()
    again = {"torn": {4}, "a byte": {4}, "zeros": set(), "another file": {*range(5)}}.get(damage, {3})
    assert {index for index, record in packed(tmp_path / "mine").items() if record != kept[index]} == again
    with warnings.catch_warnings():  # nothing damaged is left
        warnings.filterwarnings("error", message=".*is damaged.*")
        run(tmp_path, pgd(steps=2), callbacks=callbacks())


class Reads(Callback):
    """What `transfer.json` says while a run is under way."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        self.summary = strict_json(self.folder / "transfer.json")


@pytest.mark.parametrize("change", ["a record is gone", "a photo more", "nothing"])
def test_a_table_of_before_is_partial_until_it_is_written_anew(tmp_path, change):
    """A run that is killed after its last record, and before its table, must not show those of before as its own."""
    folder = tmp_path / "mine"

    def attack(how, dataset=SCENES, *others):
        metrics = TransferMetrics(table=False)
        run(tmp_path, how, dataset=dataset, callbacks=[RunFolder(str(tmp_path), "mine"), metrics, *others])
        return metrics.summary

    attack(Fails(at=0), Fewer("nothing") if change == "a photo more" else SCENES)
    first = strict_json(folder / "transfer.json")
    if change == "a record is gone":
        drop(folder, 3)
    if change != "nothing":
        with pytest.raises(RuntimeError, match="broken"):
            attack(Fails(at=1))
        assert strict_json(folder / "transfer.json") == {**first, "partial": True}
    reads = Reads(folder)  # after the callback that writes
    after = attack(Fails(at=0), SCENES, reads)
    assert reads.summary == (first if change == "nothing" else {**first, "partial": True})
    assert "partial" not in after
    assert after["images"] == 5
    assert after["seconds"]["run"] > first["seconds"]["run"], "what it knows of before is kept"


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
    before = packed(tmp_path / "mine")
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second, dataset=Other(change))
    after = packed(tmp_path / "mine")
    assert {index for index in after if after[index] != before[index]} == again
    new = TransferMetrics(table=False)
    run(tmp_path, pgd(steps=2), dataset=Other(change), callbacks=[RunFolder(str(tmp_path), "new"), ImageWriter(), new])
    if change != "order":  # a photo's place in the data set is its seed
        assert second[-1].rows == new.rows


class Fewer(Other):
    def __len__(self):
        return 3


def test_records_of_photos_that_are_no_part_of_the_run_go_with_a_warning(tmp_path):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, NoAttack(), callbacks=callbacks())
    with pytest.warns(UserWarning, match=r"2 finished images of '.*mine' are not among the images of this run"):
        run(tmp_path, NoAttack(), callbacks=callbacks(), dataset=Fewer("nothing"))
    assert packed(tmp_path / "mine").keys() == {0, 1, 2}


def test_what_a_killed_process_was_writing_is_no_record(tmp_path):
    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), TransferMetrics(table=False)]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    segment, _ = frame_of(tmp_path / "mine", 3)
    unfinished = segment.rename(segment.with_name(f".99.unfinished.{segment.name}"))
    second = callbacks()
    run(tmp_path, pgd(steps=2), callbacks=second)
    assert segment.is_file()
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


def test_a_run_that_goes_on_draws_its_curves_once(tmp_path):
    def callbacks():
        metrics = TransferMetrics(table=False)
        return [RunFolder(str(tmp_path), "mine"), ImageWriter(), ImageLogger(2), metrics, Overview()]

    run(tmp_path, pgd(steps=2), callbacks=callbacks())
    drop(tmp_path / "mine", 3)
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


def ours(folder):
    metrics = TransferMetrics(table=False)
    return [RunFolder(str(folder), "mine"), ImageWriter(), ImageLogger(2), metrics, Overview(), GracefulStop()]


def files(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted("events" if name.startswith("events.out") else name for name in names)


class Asks(Callback):
    """A callback of a user, who wants to know the run's folder."""

    def setup(self, trainer, pl_module, stage):
        self.log_dir = trainer.log_dir


def test_every_order_is_arranged_the_same_and_others_keep_their_positions(tmp_path):
    one, two = Asks(), Asks()
    for order in permutations(ours(tmp_path)):
        trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
                          enable_model_summary=False, callbacks=[one, *order[:3], two, *order[3:]])  # fmt: skip
        folder = next(callback for callback in order if isinstance(callback, RunFolder))
        folder.arrange(trainer)
        kinds = [type(callback).__name__ for callback in trainer.callbacks if not isinstance(callback, Asks)]
        assert kinds == ["RunFolder", "ImageWriter", "ImageLogger", "TransferMetrics", "Overview", "GracefulStop"]
        assert [trainer.callbacks.index(one), trainer.callbacks.index(two)] in ([1, 4], [1, 5])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of a run."""
    results = tmp_path_factory.mktemp("expected")
    run(results, pgd(steps=2), callbacks=ours(results))
    return files(results / "mine")


@pytest.mark.parametrize("turn", range(6))
def test_the_order_of_callbacks_does_not_matter(turn, expected, tmp_path, monkeypatch):
    """Also with Lightning's default logger, which writes into the working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    callbacks = ours(tmp_path / "found")[::-1]
    asks = Asks()
    run(tmp_path, pgd(steps=2), callbacks=[asks, *callbacks[turn:], *callbacks[:turn]], logger=turn % 2 == 0)
    assert files(tmp_path / "found" / "mine") == expected
    assert asks.log_dir == str(tmp_path / "found" / "mine")
    assert not list((tmp_path / "work").iterdir())


def test_loggers_that_were_asked_for_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = TensorBoardLogger(tmp_path / "board", name="", version="own")
    run(tmp_path, pgd(steps=2), callbacks=ours(tmp_path / "results")[::-1], logger=logger)
    own, mine = (events(folder).Tags() for folder in (tmp_path / "board" / "own", tmp_path / "results" / "mine"))
    # Threads make the pictures and give them to one logger after the other: their order is chance, nothing else is.
    assert sorted(own.pop("images")) == sorted(mine.pop("images"))
    assert own == mine


def test_hyperparameters_are_in_a_file(tmp_path):
    run(tmp_path, pgd(steps=2), callbacks=ours(tmp_path))
    run(tmp_path, pgd(steps=2), callbacks=ours(tmp_path))  # nothing left to do
    found = yaml.safe_load((tmp_path / "mine" / "hparams.yaml").read_text())
    assert found.items() >= {"attack": "pgd", "source": "source", "eps": 8.0, "steps": 2, "trial/seed": 0}.items()
    without = [RunFolder(str(tmp_path), "without"), TransferMetrics(table=False)]
    run(tmp_path, pgd(steps=2), callbacks=without)
    assert not (tmp_path / "without" / "hparams.yaml").exists()


def test_a_module_that_arranges_nothing_is_told_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AttackModule, "configure_callbacks", lambda module: [])
    run(tmp_path, pgd(steps=1), callbacks=ours(tmp_path / "results"))
    with pytest.raises(RunError, match=r"RunFolder must be the first callback.*super"):
        run(tmp_path, pgd(steps=1), callbacks=ours(tmp_path / "results")[::-1])


def in_two_processes(results, work):
    os.chdir(work)
    torch.set_num_threads(1)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", callbacks=ours(results)[::-1],
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    # Not a trained one: processes in which gradients were taken before a fork take none after it.
    network = SegmentationModel(nn.Conv2d(3, 8, 1), name="source")
    trainer.predict(AttackModule(network, pgd(steps=2)), return_predictions=False,
                    datamodule=SegmentationDataModule(SCENES, batch_size=2))  # fmt: skip


def test_nor_does_it_matter_in_two_processes(expected, tmp_path):
    (tmp_path / "work").mkdir()
    process = clean_processes().Process(target=in_two_processes, args=(tmp_path / "found", tmp_path / "work"))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    second = ".lock.process_1", "records/0001_0000.segment"
    found = [name for name in files(tmp_path / "found" / "mine") if name not in second]
    assert found == expected
    assert len(files(tmp_path / "found" / "mine")) == len(expected) + len(second)
    assert not list((tmp_path / "work").iterdir())
