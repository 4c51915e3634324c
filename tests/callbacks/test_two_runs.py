"""One `Trainer` and its callbacks for two runs: the second knows nothing of the first."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_attack.attacks import NoAttack
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import AttackProgress, ImageLogger, TransferMetrics
from lightning_attack.data import SegmentationDataModule
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs import RunError
from lightning_attack.runs.lock import lock_folder
from tests.callbacks.small_runs import SCENES, events, model, run, strict_json
from tests.processes import clean_processes


def two_runs(*callbacks, logger=False, second=None):
    """The scenes from a data module, then three photos without names and classes from a `DataLoader`."""
    photos = DataLoader(TensorDataset(torch.rand(3, 3, 32, 32), torch.zeros(3, 32, 32).long()), batch_size=2)
    trainer = Trainer(accelerator="cpu", devices=1, logger=logger, callbacks=[*callbacks], enable_checkpointing=False,
                      enable_model_summary=False)  # fmt: skip
    for data, attack in ((SegmentationDataModule(SCENES, batch_size=2), NoAttack()), (photos, second or NoAttack())):
        trainer.predict(AttackModule(model(), attack), data, return_predictions=False)
        yield trainer


def test_the_data_of_the_first_is_forgotten(tmp_path, capsys):
    metrics = TransferMetrics(str(tmp_path), table=False)
    first, second = (dict(metrics.summary) for _ in two_runs(metrics, AttackProgress()))
    assert (first["images"], second["images"]) == (5, 3)
    assert ("data" in first, "data" in second) == (True, False)
    classes = [[*run["targets"][0]["clean_iou"]] for run in (first, second)]
    assert classes == [[*SCENES.classes], [str(c) for c in range(8)]]
    assert "partial" not in second
    said = capsys.readouterr().err
    assert "; 5 photos in batches" in said
    assert "; 3 photos in batches" in said


def test_the_pictures_of_the_first_are_not_those_of_the_second(tmp_path):
    kept = [sorted(path.name for path in (tmp_path / "panels").iterdir())
            for _ in two_runs(ImageLogger(4), logger=TensorBoardLogger(tmp_path, "", ""))]  # fmt: skip
    assert kept == [[f"{index:08d}.png" for index in range(count)] for count in (4, 3)]
    names = [*(f"images/image_{index:06d}" for index in range(3)), *(f"images/scene_{index:06d}" for index in range(4))]
    assert sorted(events(tmp_path).Tags()["images"]) == names


class Fails(Attack):
    def perturb(self, problem):
        raise RuntimeError("broken")


def test_the_results_of_the_first_are_not_those_of_a_second_that_fails(tmp_path):
    metrics = TransferMetrics(str(tmp_path), table=False)
    runs = two_runs(metrics, second=Fails("fails"))
    next(runs)
    metrics.incomplete = True
    assert metrics.rows[0]["images"] == metrics.summary["images"] == 5
    with pytest.raises(RuntimeError, match="broken"):
        next(runs)
    assert (metrics.rows, metrics.summary, metrics.incomplete) == ([], {}, False)


class Looks(NoAttack):
    """Starts another run in the folder of the one that it belongs to."""

    folder = None

    def perturb(self, problem):
        with pytest.raises(RunError, match=r"is in use by another run \(pid"):
            run(None, NoAttack(), callbacks=[TransferMetrics(str(self.folder), table=False)])
        return super().perturb(problem)


def test_two_runs_at_once_do_not_share_a_folder(tmp_path):
    """Without a `RunFolder`, too: the second would delete the records of the first, and count its later ones."""
    Looks.folder = tmp_path / "made" / "mine"
    metrics = TransferMetrics(str(Looks.folder), table=False)
    run(None, Looks(), callbacks=[metrics])
    assert metrics.summary["images"] == 5
    with pytest.raises(RuntimeError, match="broken"):
        run(None, Fails("fails"), callbacks=[metrics])
    run(None, NoAttack(), callbacks=[TransferMetrics(str(Looks.folder), table=False)])  # those before have ended


def in_two_processes(folder):
    torch.set_num_threads(1)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", logger=False,
                      callbacks=[TransferMetrics(str(folder), table=False)], enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    network = SegmentationModel(torch.nn.Conv2d(3, 8, 1), name="source")
    for _ in range(2):
        trainer.predict(AttackModule(network, NoAttack()), SegmentationDataModule(SCENES), return_predictions=False)


def test_of_two_processes_one_locks_the_folder(tmp_path):
    process = clean_processes().Process(target=in_two_processes, args=(tmp_path,))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert strict_json(tmp_path / "transfer.json")["images"] == 5
    lock_folder(tmp_path).release()
