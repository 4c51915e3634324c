"""Every file of `configs/fit`, `configs/studies` and `configs/benchmarks` is read, made and checked; nothing is run.

Those of attacks are in test_main.py, those of data in tests/data/test_configs.py.
"""

import pytest
from lightning.pytorch import Trainer

from lightning_attack.callbacks.study_progress import StudyProgress
from lightning_attack.cli import CONFIGS, AttackCLI, main
from lightning_attack.cli import study as command
from lightning_attack.cli.study_cell import Shared
from lightning_attack.study.plan import cells
from tests.data.trees import LAYOUTS

FIT = sorted((CONFIGS / "fit").glob("*.yaml"))
STUDIES = sorted([*(CONFIGS / "studies").glob("*.yaml"), *(CONFIGS / "benchmarks").glob("*.yaml")])
GIVEN_BESIDE = {
    "scenes_fpn_robust": "scenes_fpn", "pir_at": "voc_unet_lite0", "segpgd_at": "voc_unet_lite0",
    "transegpgd_at": "voc_unet_lite0",
}  # fmt: skip
"""Files of adversarial training say nothing of the network; one that goes before."""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py"])


@pytest.mark.parametrize("file", FIT, ids=lambda file: file.stem)
def test_fit(file, monkeypatch, tmp_path):
    """Encoders come without their weights, which would be downloaded."""
    begun = []
    monkeypatch.setattr(Trainer, "fit", lambda trainer, model, **_: begun.append(model))
    LAYOUTS["voc"].make(tmp_path / "data")
    for split in tmp_path.rglob("train.txt"):
        split.write_text("2007_000001\n2007_000002\n")
    first = GIVEN_BESIDE.get(file.stem)
    files = [CONFIGS / "fit" / f"{first}.yaml", file] if first else [file]
    words = [word for one in files for word in ("-c", str(one))]
    assert main(["fit", *words, "--model.network.init_args.encoder_weights=null", "--data.batch_size=2"]) == 0
    (task,) = begun
    assert task.network.num_classes == (8 if "scenes" in file.stem else 21)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_studies(file, monkeypatch, tmp_path):
    """The first cell makes all networks; each attack that is written out makes itself."""
    plan = command.read(file)
    found = cells(plan, file.parent)
    assert len(found) == len(plan.sources) * len(plan.attacks) * max(1, len(plan.budgets)) * len(plan.seeds)
    reached, shared = [], Shared()
    monkeypatch.setattr(AttackCLI, "predict", lambda cli, **_: reached.append(cli.model))
    written_out = {cell.name: cell for cell in found if not isinstance(cell.attack, str)}
    for cell in (found[0], *written_out.values()):
        progress = StudyProgress([cell.name], [1.0], shown=False)
        command._run_cell(plan, cell, tmp_path, shared, progress)
        assert {*reached[-1].networks} >= {*(plan.targets or plan.networks)}
