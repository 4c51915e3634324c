"""Every command and every example of the README runs."""

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pdoc.__main__
import pytest
import torch
import yaml
from PIL import Image
from torchvision import models
from torchvision.datasets import voc

from lightning_attack import __version__
from lightning_attack.attacks import PRESETS
from lightning_attack.cli.main import main
from lightning_attack.data import SyntheticScenes
from tests.readme import pictures
from tests.runs.made import make_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


PREDICT = [line for line in COMMANDS if line.startswith("python main.py predict")]
HELP = [line for line in PREDICT if "help" in line]


@pytest.mark.parametrize("command", [line for line in PREDICT if line not in HELP])
def test_predict_commands(command, monkeypatch, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photos" / "a.jpg")
    for block in blocks("yaml"):
        (tmp_path / re.match(r"# (\w+\.yaml)", block)[1]).write_text(block)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setattr(voc, "download_and_extract_archive", lambda url, root, **_: _tiny_voc(Path(root)))
    monkeypatch.setattr(models._api.WeightsEnum, "get_state_dict", _untrained)
    arguments = shlex.split(command)[2:]
    # One scene and one step show that the command is right; devices are for test_cli.
    small = ["--data.limit=1", "--trainer.devices=1"]
    if "--model.attack=Peer" in arguments:
        pytest.importorskip("torchattacks", reason="the peer is optional")
    elif "--data.adversarial_root=their_images" in arguments:
        (tmp_path / "their_images").mkdir()
        scene = SyntheticScenes(1)[0]
        Image.fromarray(scene.image // 8 * 8).save(tmp_path / "their_images" / f"{scene.name}.png")
    else:
        small.append("--model.attack.steps=1")
    if "my_study.yaml" in arguments:
        small.append("--data.size=64")
    if "configs/data/voc_paper.yaml" in arguments:
        small.append("--model.windows.size=48")
    assert main([*arguments, *small]) == 0
    assert list(tmp_path.glob("results/**/transfer.csv"))


@pytest.mark.parametrize("command", HELP)
def test_help_commands(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[2:])
    assert end.value.code == 0
    assert "--model.attack" in capsys.readouterr().out


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python main.py fit")])
def test_fit_commands(command, monkeypatch, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    _tiny_voc(tmp_path / "data", photos=16)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    small = ["--trainer.fast_dev_run=true", "--data.num_workers=0"]
    if "voc" in command:
        small.append("--model.network.init_args.encoder_weights=null")
    assert main([*shlex.split(command)[2:], *small]) == 0


def _tiny_voc(root, photos=1):
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    names = [f"photo{number}" for number in range(photos)]
    for name in names:
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(folder / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(np.full((30, 40), 3, np.uint8)).save(folder / "SegmentationClass" / f"{name}.png")
    for split in ("train", "trainval", "val"):
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))


def _untrained(weights, *_, **__):
    """Stands for a download: the state dict of the network that the weights belong to."""
    builder = models.get_model_builder(
        "deeplabv3_resnet50" if "DeepLab" in type(weights).__name__ else "lraspp_mobilenet_v3_large"
    )
    options = {"aux_loss": True} if "DeepLab" in type(weights).__name__ else {}
    torch.manual_seed(0)
    return builder(weights=None, weights_backbone=None, num_classes=21, **options).state_dict()


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples(block):
    exec(compile(block, "README.md", "exec"), {})


def test_pictures(predict, tmp_path):
    """The README's commands make pictures of the same names and shapes as those that it shows."""
    first, second = [line for line in COMMANDS if "=readme" in line or "/readme" in line]
    run = next(word for word in shlex.split(second) if word.startswith("results/"))
    small = ["--data.limit=2", "--model.attack.steps=1"]
    assert predict(*shlex.split(first)[3:], *small) == 0
    pictures.main([str(tmp_path / run), f"--to={tmp_path / 'made'}"])
    shown = [ROOT / name for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {path.name for path in shown}
    assert sum(path.stat().st_size for path in shown) < 150_000
    for path in shown:
        # The legend has the classes that occur, and may need another line in another run.
        sizes = [Image.open(picture).size for picture in (path, tmp_path / "made" / path.name)]
        assert sizes[0][0] == sizes[1][0]
        assert abs(sizes[0][1] - sizes[1][1]) <= 16


def test_reference(tmp_path, monkeypatch):
    """All docstrings become pages; a warning, such as an annotation that cannot be read, is an error."""
    (command,) = [line for line in COMMANDS if "pdoc" in line]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command)[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.__main__.cli()
    page = (tmp_path / "site" / "lightning_attack" / "attacks.html").read_text()
    for preset in PRESETS:
        assert f'id="{preset.__name__}"' in page
    assert "gamma" in page


def test_manual_of_an_attack():
    (command,) = [line for line in COMMANDS if "pydoc" in line]
    arguments = [sys.executable, *shlex.split(command)[1:]]
    manual = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True).stdout
    assert "gamma" in manual
    assert "2312.02207" in manual


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python main.py export")])
def test_export_commands(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[2:]) == 0
    assert (tmp_path / "model.pt2").is_file()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python main.py report")])
def test_report_commands(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "results" / "pgd" / "version_0")
    make_run(tmp_path / "results" / "fgsm" / "version_0", "fgsm")
    assert main(shlex.split(command)[2:]) == 0
    for name in ("report.csv", "differences.csv", "report.md", "report.tex", "report.html"):
        assert (tmp_path / "report" / name).is_file()
        assert f"`{name}`" in README


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python main.py study")])
def test_study_commands(command, monkeypatch, tmp_path, capsys):
    study = yaml.safe_load((ROOT / "configs" / "studies" / "scenes.yaml").read_text())
    study["data"]["dataset"]["init_args"] |= {"count": 1, "size": 32}
    study["attacks"] = [str(ROOT / file) for file in study["attacks"][:2]]
    (tmp_path / "configs" / "studies").mkdir(parents=True)
    (tmp_path / "configs" / "studies" / "scenes.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert main(shlex.split(command)[2:]) == 0
    expected = 0 if "dry" in command else 1 if "--cell" in command else 4
    assert len(list(tmp_path.glob("results/scenes/*/transfer.csv"))) == expected


def test_no_command_is_left_out():
    """The table of presets by test_shared, that of engines and benchmarks by test_benchmarks, TensorBoard by
    test_tensorboard, the first two lines by CI, those for clusters by test_resume."""
    kinds = (
        "python3 -m venv", "python main.py predict", "python main.py fit", "python main.py export", "python -m pydoc",
        "python main.py report", "python main.py study",
        "tensorboard", "sbatch configs/cluster", "HEAD=node0:29500 NODES=2",
        "python -m tests.readme.presets_table", "python -m tests.readme.pictures",
        "python -m tests.readme.strength_table",
        "python -m pdoc", "python tests/benchmarks/",
    )  # fmt: skip
    assert all(line.startswith(kinds) for line in COMMANDS), COMMANDS
    for name in re.findall(r"(?<![\w/])[\w/]*configs/[\w/]+\.yaml", README):
        assert (ROOT / name).is_file(), name


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert {"cff-version", "title", "authors", "message"} <= set(citation)
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (__version__, str(citation["date-released"]))
