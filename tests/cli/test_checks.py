"""Every command looks before it starts: mistakes are a sentence within seconds, and leave nothing behind."""

import re
import socket
import sys
from datetime import timedelta

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_attack.attacks import PRESETS
from lightning_attack.cli import CONFIGS, launch, main, processes
from lightning_attack.cli.errors import UsageError
from lightning_attack.data import SyntheticScenes
from lightning_attack.training.new_folder import NewFolder
from tests.attacks.test_completeness import MORE_FORWARD, OTHER_PASSES, ROWS
from tests.training.test_fit import SMALL, part, scenes


def write_folder(folder, count=3):
    """Drawn scenes of eight classes as photos and masks on disk; their folders."""
    drawn, places = SyntheticScenes(count, size=64), (folder / "photos", folder / "masks")
    for place in places:
        place.mkdir(parents=True)
    for scene in (drawn[number] for number in range(count)):
        for place, pixels in zip(places, (scene.image, scene.mask), strict=True):
            Image.fromarray(pixels).save(place / f"{scene.name}.png")
    return places


WEIGHTS = CONFIGS.parent / "lightning_attack" / "weights" / "scenes_fpn.safetensors"


@pytest.fixture
def answer(monkeypatch, tmp_path, capsys):
    """What the command line says to words that are a mistake; it must be short and leave nothing in the folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def answer(*words, code=2):
        monkeypatch.setattr(sys, "argv", ["lightning-attack"])
        assert main([str(word) for word in words]) == code
        said = capsys.readouterr().err
        text = said[said.index("error: ") :].strip()
        assert "Traceback" not in said
        assert len(text.splitlines()) <= 3
        assert not list(here.iterdir()), "something half-written is left"
        return text

    return answer


@pytest.fixture
def config(tmp_path):
    """A file for `fit` with changes at `data`, `model` and `trainer`."""

    def config(**changes):
        text = {
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
            "model": {"network": SMALL},
            "data": {"train": scenes(2, 1), "val": scenes(2, 2), "batch_size": 2},
        }
        for key, change in changes.items():
            text[key] |= change
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump(text))
        return tmp_path / "fit.yaml"

    return config


class Other(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def checkpoint(state, **more):
    return {"state_dict": state, "pytorch-lightning_version": "2.6.0"} | more


FILES = {
    "none": (None, "there is no file"),
    "text": (b"hello\n", "is no Lightning checkpoint"),
    "empty": (b"", "an empty file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64, "a Git LFS pointer"),
    "page": (b"<!DOCTYPE html>\n<title>Quota exceeded</title>", "an HTML page"),
    "tensor": (torch.zeros(2), "--model.network=SMPModel --model.network.weights="),
    "plain": ({"a": torch.zeros(2)}, "--model.network=SMPModel --model.network.weights="),
    "unsafe": (checkpoint({}, code=timedelta(1)), r"holds a pickled object (datetime.timedelta)"),
    "other": (checkpoint(Other().state_dict()), "is a checkpoint of another network: "),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_anything_as_a_checkpoint(kind, command, answer, config, tmp_path):
    content, says = FILES[kind]
    file = tmp_path / "a.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    assert says in answer(command, "-c", config(), f"--ckpt_path={file}")


def test_more_checkpoints_that_are_none(answer, config, tmp_path):
    says = answer("test", "-c", config(), f"--ckpt_path={WEIGHTS}")
    assert f"--model.network=TrainedModel --model.network.file={WEIGHTS}" in says
    assert "is a folder" in answer("fit", "-c", config(), f"--ckpt_path={tmp_path}")
    assert "give the .ckpt file" in answer("validate", "-c", config(), "--ckpt_path=best")


def damaged(folder, kind):
    root, masks = write_folder(folder)
    if kind == "cut":
        photo = sorted(root.rglob("*.png"))[1]
        photo.write_bytes(photo.read_bytes()[:200])
    return part("ImageFolder", root=str(root), masks=str(masks), classes=list("abcdefgh"))


def test_training_that_cannot_work(answer, config, tmp_path):
    bad = damaged(tmp_path / "cut", "cut")
    for command, key in (("fit", "train"), ("fit", "val"), ("validate", "val"), ("test", "val")):
        assert "cannot be read" in answer(command, "-c", config(data={key: bad}))
    pooled = part("SMPModel", arch="deeplabv3plus", encoder_name="tu-test_resnet", encoder_weights=None, num_classes=8)
    says = answer("fit", "-c", config(model={"network": pooled}, data={"batch_size": 1}))
    assert "cannot learn from one photo at a time" in says
    assert "--data.batch_size=2" in says
    monitor = [part("ModelCheckpoint", monitor="val/mIoU")]
    assert "did you mean val/miou?" in answer("fit", "-c", config(trainer={"callbacks": monitor}))
    assert "needs data.train" in answer("fit", "-c", config(data={"train": None}))
    assert "needs data.val" in answer("fit", "-c", config(data={"val": None}))
    assert "fewer than data.batch_size=9" in answer("fit", "-c", config(data={"batch_size": 9}))
    assert "a part of this path is a file" in answer("fit", "-c", config(), "--trainer.default_root_dir=/dev/null/a")


def test_networks_that_are_scored_without_having_learned(config, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)

    def said(command, *words):
        recwarn.clear()
        assert main([command, "-c", str(config()), "--trainer.logger=false", *words]) == 0
        return "\n".join(str(one.message) for one in recwarn.list)

    assert "random weights" not in said("fit")
    (file,) = tmp_path.rglob("*.ckpt")
    for command in ("validate", "test"):
        assert re.search(r"'fpn_test_resnet' has random weights: .*, or give .*: --ckpt_path=FILE", said(command))
    trained = said("test", f"--ckpt_path={file}", "--model.network.init_args.std=[58,57,57]")
    assert "random weights" not in trained
    assert "std of 'fpn_test_resnet' are for pixels of 0 to 255" in trained


class Fails(LightningModule):
    def __init__(self, after):
        super().__init__()
        self.layer, self.after = torch.nn.Linear(1, 1), after

    def training_step(self, batch, number):
        if number == self.after:
            raise RuntimeError("broken")
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(("after", "stays"), [(0, False), (3, True)])
def test_a_run_that_fails_at_once_leaves_no_folder(after, stays, tmp_path):
    folder = NewFolder()
    trainer = Trainer(
        accelerator="cpu", logger=CSVLogger(tmp_path / "logs"), callbacks=[folder], max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    folder.look(trainer)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Fails(after), torch.utils.data.DataLoader(torch.rand(5, 1)))
    folder.discard()
    assert any(tmp_path.rglob("*")) == stays, [*tmp_path.rglob("*")]


JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mine", "SLURM_NTASKS": "4", "SLURM_NNODES": "1"}
STALE = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (JOB, "SLURM_NTASKS=4), and this process was not started by srun"),
        (JOB | {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0"}, "srun lightning-attack ..."),  # of a shell
        (JOB | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                "SLURM_NODEID": "0"}, "has 2 tasks, but trainer.devices=1"),
        (STALE, "env -u RANK -u WORLD_SIZE -u LOCAL_RANK -u MASTER_ADDR -u MASTER_PORT lightning-attack"),
        ({"RANK": "2"}, "(RANK=2)"),
        ({"LOCAL_RANK": "1"}, "(LOCAL_RANK=1)"),
        ({"WORLD_SIZE": "4"}, "(WORLD_SIZE=4)"),
        ({"RANK": "5", "WORLD_SIZE": "4"}, "ranks are below the number"),
        ({"WORLD_SIZE": "many"}, "is no number"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "mpirun started 4 processes"),
    ],
)  # fmt: skip
def test_environments_of_other_jobs(environment, says, answer, config, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    quick = ("--data.limit=1", "--model.attack=fgsm", "--trainer.accelerator=cpu", "--trainer.devices=1")
    assert says in answer("predict", *quick)
    assert says in answer("validate", "-c", config(), "--trainer.devices=1")


@pytest.mark.parametrize("environment", [JOB, STALE | {"RANK": "5"}])
def test_commands_without_a_run_take_any_environment(environment, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for words, says in (("--version", "lightning-attack "), ("predict --help", "--model.attack")):
        with pytest.raises(SystemExit):
            main(words.split())
        assert says in capsys.readouterr().out
    assert main(["attacks", "transegpgd_best"]) == 0
    assert main(["predict"]) == 2


def test_environments_that_are_right():
    launch.check_environment({})
    launch.check_environment(JOB | {"SLURM_JOB_NAME": "interactive"})  # Lightning does not go by it
    launch.check_environment(JOB | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3"})
    launch.check_world(4, 1, JOB | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3"})
    launch.check_world(4, 1, STALE)
    launch.check_world(2, 2, STALE | {"LOCAL_RANK": "0", "NODE_RANK": "1"})
    launch.check_world(1, 1, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    launch.check_world(1, 1, {"MASTER_ADDR": "node17"})
    assert launch.launcher({"TORCHELASTIC_RUN_ID": "a"}) == "torchrun"
    launch.check_environment({"OMPI_COMM_WORLD_SIZE": "1"})
    launch.check_environment(JOB | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "PMI_SIZE": "4"})


@pytest.mark.parametrize("rank", ["0", "1"])
def test_others_that_never_come_are_waited_for_minutes_only(rank, answer, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=2))
    monkeypatch.setattr(processes, "_SOON", 0.1)
    for name, value in (STALE | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port}).items():
        monkeypatch.setenv(name, value)
    ddp = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    says = answer("predict", "--data.limit=2", "--model.attack=fgsm", *ddp)
    assert f"process {rank} of 2 waited" in says
    assert f"MASTER_PORT={port}" in says
    assert "-u MASTER_PORT" in says
    assert timedelta(hours=1) < processes.PATIENCE, "a run itself may wait long"


def test_tasks_of_srun_that_never_come(answer, monkeypatch):
    """Nobody has left the variables here by which they are waited for: this process sets them."""
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=1))
    step = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_STEP_ID": "0",
            "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}  # fmt: skip
    for name, value in (JOB | step).items():
        monkeypatch.setenv(name, value)
    ddp = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    says = answer("predict", "--data.limit=2", "--model.attack=fgsm", *ddp)
    assert "process 1 of 2 waited" in says
    assert says.endswith("see why they did not start; if one has failed, its own message says why")


def test_machines_and_devices_that_are_not_there(answer):
    many = ("predict", "--trainer.accelerator=cpu", "--model.attack=fgsm")
    assert "--trainer.devices=640" not in answer(*many, "--trainer.devices=640")
    assert "640 on the CPU are as many processes" in answer(*many, "--trainer.devices=640")
    # Tests see no GPU, see tests/conftest.py.
    assert "there is no GPU that torch can use" in answer("predict", "--trainer.accelerator=gpu")
    with pytest.raises(UsageError, match="is no machine that can be found"):
        processes._check_address("no.such.machine.invalid", 1, "see why")


OWN = part("SMPModel", arch="fpn", encoder_name="tu-test_resnet", encoder_weights=None, num_classes=5)


@pytest.fixture
def own_photos(tmp_path):
    root, _ = write_folder(tmp_path / "own")
    return {"dataset": part("ImageFolder", root=str(root)), "batch_size": 1, "limit": 1}


def test_a_source_of_one_s_own_needs_no_targets(predict, own_photos, tmp_path):
    config = {"model": {"source": OWN, "attack": "fgsm"}, "data": own_photos}
    with pytest.warns(UserWarning, match=r"'fpn_mobilenetv2' \(8 classes, the source has 5\), 'segformer"):
        assert predict(config, "--run_name=a", "--trainer.accelerator=cpu") == 0
    saved = yaml.safe_load((tmp_path / "results" / "a" / "config.yaml").read_text())
    assert saved["model"]["targets"] == {}, "what was really used"
    rows = (tmp_path / "results" / "a" / "transfer.csv").read_text().splitlines()
    assert len(rows) == 2


def test_targets_that_the_user_gave_are_errors(predict, own_photos, capsys):
    config = {"model": {"source": OWN, "attack": "fgsm"}, "data": own_photos}
    given = "{mine: {class_path: TrainedModel, init_args: {file: 'embedded:scenes_fpn'}}}"
    assert predict(config, f"--model.targets={given}") == 2
    said = capsys.readouterr().err
    assert "target 'mine' has 8 classes, source 'fpn_test_resnet' has 5" in said
    assert "default" not in said


def test_targets_that_know_other_things_are_left_out(predict, tmp_path):
    root, masks = write_folder(tmp_path / "own")
    names = ["sky", "sea", *"cdefgh"]
    config = {
        "model": {"source": part("TrainedModel", file="embedded:scenes_fpn"), "attack": "fgsm"},
        "data": {"dataset": part("ImageFolder", root=str(root), masks=str(masks), classes=names), "limit": 1},
    }
    with pytest.warns(UserWarning, match="classes background, disk, square, ...; the data has sky, sea, c, ..."):
        assert predict(config, "--run_name=a", "--trainer.accelerator=cpu") == 0


def test_a_study_scores_what_fits(own_photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    study = {
        "networks": {"mine": OWN, "other": part("TrainedModel", file="embedded:scenes_fpn")},
        "attacks": ["fgsm"], "sources": ["mine"], "data": own_photos, "trainer": {"accelerator": "cpu"},
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    with pytest.warns(UserWarning, match=r"'other' \(8 classes, the source has 5\)"):
        assert main(["study", "-c", "s.yaml"]) == 0
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(study | {"targets": ["mine", "other"]}))
    assert main(["study", "-c", "t.yaml"]) == 2
    assert "target 'other' has 8 classes" in capfd.readouterr().err


def test_what_nobody_gave_is_called_so(answer, tmp_path):
    root, masks = write_folder(tmp_path / "own")
    data = ("--data.dataset=ImageFolder", f"--data.dataset.root={root}", f"--data.dataset.masks={masks}")
    says = answer("predict", *data, "--data.dataset.classes=[a,b,c,d,e]", "--data.batch_size=1")
    assert "you gave no model.source, so it is that of the default configuration" in says


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predict", "--eps=8/255"], "did you mean --model.attack.eps? Write --model.attack.eps=8/255"),
        (["predict", "--model.source=embedded:scenes_fpn"], "--model.source=TrainedModel --model.source.file=embed"),
        (["predict", "--model.source=a/b.pth"], "--model.source=SMPModel --model.source.weights=a/b.pth"),
        (["predict", "--model.targets=a.pt2"], "'{NAME: {class_path: ExportedModel, init_args: {path: a.pt2}}}'"),
        (["predict", "--data=VOCSegmentation"], "for a class: --data.dataset=VOCSegmentation"),
        (["predict", "--data.dataset=ImageFolder", "--data.dataset.root=.", "--data.dataset.classes=8"],
         "data.dataset.classes: expected list; given: 8\nwrite the names of the 8 classes"),
        (["predict", "--data.dataset=ImageFolder"], "data.dataset needs: --data.dataset.root"),
        (["predict", "--data.size=96x96"], "write several values in brackets: [96,96]"),
        (["predict", "-model.attack=pgd"], "options begin with two dashes\nwrite --model.attack=pgd"),
        (["predict", "model.attack=pgd"], "options begin with two dashes\nwrite --model.attack=pgd"),
        (["predict", "--fresh"], "--fresh needs a value: --fresh=VALUE"),
        (["predict", "--gpus=2"], "did you mean --trainer.devices?"),
        (["fit", "--data.train=SyntheticScenes"], "this command needs: --model.network"),
        (["export"], "this command needs: --ckpt, --to"),
        (["figure", "matrix", "a"], "this command needs: --output"),
        (["report", "a"], "there is no folder 'a'"),
        (["pgd"], "predict --model.attack=pgd"),
        (["configs/default.yaml"], "predict -c configs/default.yaml"),
        (["fit", "-c", "configs/ensemble.yaml"], "give the file to predict: predict -c FILE"),
        (["predict", "-c", "configs/fit/scenes_fpn.yaml"], "give the file to fit: fit -c FILE"),
        (["predict", "-c", "configs/studies/scenes.yaml"], "give the file to study: study -c FILE"),
        (["study", "-c", str(CONFIGS / "ensemble.yaml")], "is no study: it has no networks, attacks or sources"),
        (["export", f"--ckpt={WEIGHTS}", "--to=/dev/null/model.pt2"], "a part of this path is a file"),
        (["report", "a", "--output=/dev/null/a"], "a part of this path is a file"),
    ],
)  # fmt: skip
def test_what_was_meant(words, says, answer):
    assert says in answer(*words)


def test_attacks_are_listed(capsys, monkeypatch):
    assert main(["attacks"]) == 0
    listed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in listed.split("\n\n")[0].splitlines()[1:]}
    assert [*lines] == [preset.__name__ for preset in PRESETS]
    # The README has the same years, and the passes of 20 steps.
    for name, line in lines.items():
        found = re.match(r"\w+ +(\d{4})? +(?:objective|transfer|TranSegPGD|own loop) +([\d.?]+)(?: \+ (\d+))?  ", line)
        year, _, _, passes, _ = ROWS[name]
        assert (found[1] or "") == year, name
        if name not in OTHER_PASSES:
            assert float(found[2]) * 20 + int(found[3] or 0) == int(passes), name
    (note,) = re.findall(r"^forward passes: one for each backward pass; (.*)", listed, re.MULTILINE)
    clean, ensembles = re.fullmatch(r"(.*) \(1 more a step\); (.*) \(4 more a step, with two members\)", note).groups()
    assert sorted([*clean.split(", "), *ensembles.split(", ")]) == sorted(MORE_FORWARD)
    assert main(["attacks", "momentum", "2021"]) == 0
    assert "emi_fgsm" in (few := capsys.readouterr().out)
    assert "\nforward passes" not in few, "none of these takes more"
    assert "\nbim" not in few
    assert main(["attacks", "nothing"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.attack.eps=4/255", "--model.attack.step_size=8/255"], "step_size=8/255 is longer than eps=4/255"),
        (["--model.attack.eps=0.001"], "eps=0.255/255 is less than half a level"),
    ],
)
def test_doubtful_attacks_are_said_at_the_start(words, says, predict):
    quick = ("--data.limit=1", "--model.targets=null", "--trainer.accelerator=cpu", "--model.attack.steps=2")
    with pytest.warns(UserWarning, match=says):
        assert predict("--model.attack=pgd", *quick, *words) == 0
