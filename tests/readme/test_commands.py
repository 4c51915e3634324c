"""Every command of the tool in every README runs, and every example in Python."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision import models
from torchvision.datasets import voc

from lightning_attack.attacks import PRESETS, Universal, UniversalPerturbation
from lightning_attack.cli import AttackCLI
from lightning_attack.cli.main import main
from lightning_attack.data import SyntheticScenes
from lightning_attack.models import TrainedModel
from tests.precisions import needs_bfloat16
from tests.readme.pages import COMMANDS, FILES, NOTEBOOK, PAGES, ROOT, arguments, blocks, commands
from tests.runs.made import make_run, matrices

HELP = [line for line in commands("predict") if "help" in line or "--print_config" in line]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Weights as training scripts save them."""
    trained = TrainedModel("embedded:scenes_segformer").network.state_dict()
    file = tmp_path_factory.mktemp("checkpoint") / "my_checkpoint.pt"
    torch.save({"state_dict": {f"module.{name}": values for name, values in trained.items()}}, file)
    return file


@pytest.fixture
def desk(monkeypatch, tmp_path, checkpoint):
    """The current folder of somebody who follows the READMEs: photos, a checkpoint, and the files they say to write."""
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photos" / "a.jpg")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "masks" / "a.png")
    shutil.copy(checkpoint, tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command line adds the working directory
    monkeypatch.setattr(sys, "argv", ["main.py"])
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def with_what_it_needs(command):
    """The command, which is skipped where the processor lacks what it needs."""
    return pytest.param(command, marks=needs_bfloat16 if "bf16" in command else ())


VALUES = {
    "--images", "--model.curve_every", "--model.quantize", "--run_name", "--trainer.devices", "--trainer.strategy",
    *map(
        "--model.attack.{}".format,
        ("eps", "feature_mix", "finish", "skip_gamma", "smooth_slopes", "step_schedule", "steps"),
    ),
}  # fmt: skip
"""Options whose values other tests run, as tests/cli does with the files of attacks."""


def only_values(command):
    """Whether a command differs from the default by these options and another preset alone."""
    presets = {preset.__name__ for preset in PRESETS}
    given = [word.partition("=") for word in arguments(command)[1:]]
    return all(option in VALUES or (option == "--model.attack" and value in presets) for option, _, value in given)


@pytest.mark.parametrize("command", [one for one in commands("predict") if only_values(one)])
def test_predict_commands_of_values_that_other_tests_run(command, monkeypatch, desk):
    """Up to the attack: words, parts and checks."""
    reached = []
    monkeypatch.setattr(AttackCLI, "predict", lambda cli, **_: reached.append(cli.trainer))
    assert main(arguments(command)) == 0
    assert len(reached) == 1


@pytest.mark.parametrize(
    "command",
    [with_what_it_needs(one) for one in commands("predict") if one not in HELP and not only_values(one)],
)
def test_predict_commands(command, monkeypatch, desk):
    monkeypatch.setattr(voc, "download_and_extract_archive", lambda url, root, **_: _tiny_voc(Path(root)))
    monkeypatch.setattr(models._api.WeightsEnum, "get_state_dict", _untrained)
    words = arguments(command)
    # One scene and one step show that the command is right.
    small = ["--data.limit=1", "--image_logger.count=0"]
    if not any(word == "-c" or word.startswith("--data.") for word in words):
        small.append("--data.dataset.size=64")
    if "--model.attack=FunctionAttack" in words:
        pass  # it has no steps of its own
    elif "universal" in command.lower():
        Universal(torch.full((3, 8, 8), 8 / 255), 8 / 255, "tile", {}).save(desk / "scenes.pt")
    elif "--model.attack=Peer" in words:
        pytest.importorskip("torchattacks", reason="the peer is optional")
    elif "--data.adversarial_root=their_images" in words:
        (desk / "their_images").mkdir()
        scene = SyntheticScenes(1)[0]
        Image.fromarray(scene.image // 8 * 8).save(desk / "their_images" / f"{scene.name}.png")
    else:
        small.append("--model.attack.steps=1")
    if "my_study.yaml" in words:
        small.append("--data.size=64")
    if "configs/data/voc_paper.yaml" in words:
        small.append("--model.windows.size=48")
    assert main([*words, *small]) == 0
    if "--dry_run" in words:
        assert not (desk / "results").exists()
        return
    assert list(desk.glob("results/**/transfer.csv"))
    (summary,) = _summaries(desk)
    assert summary["warnings"] == []
    if "my_network.yaml" in words and "my_photos.yaml" not in words:
        assert summary["source"] == "mine"
        assert all(row["clean_miou"] > 0.5 for row in summary["targets"])


@pytest.mark.parametrize("command", HELP)
def test_help_commands(command, desk, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments(command))
    assert end.value.code == 0
    printed = capsys.readouterr().out
    if "--print_config" in command:
        assert yaml.safe_load(printed)["model"]["attack"]["class_path"].endswith("transegpgd")
    else:
        assert re.search(r"--model\.(attack|source)", printed)


@pytest.mark.parametrize("command", commands("fit"))
def test_fit_commands(command, desk):
    _tiny_voc(desk / "data", photos=2)
    small = ["--trainer.fast_dev_run=true", "--data.num_workers=0", "--data.batch_size=2"]
    if "voc" in command:
        small.append("--model.network.init_args.encoder_weights=null")
    assert main([*arguments(command), *small]) == 0


@pytest.mark.parametrize("command", commands("universal"))
def test_universal_commands(command, desk):
    small = ["--trainer.max_epochs=1", "--data.train.init_args.count=8", "--trainer.enable_progress_bar=false"]
    assert main([*arguments(command), *small]) == 0
    assert UniversalPerturbation("scenes.pt").norm.eps == 8 / 255


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


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page}-{number}")
        for number, (page, block) in enumerate(blocks("python"))
        if page != NOTEBOOK
    ],
)
def test_python_examples(page, block, desk):
    if 'show("results")' in block:
        make_run(desk / "results" / "pgd" / "version_0")
    before = _summaries(desk)
    exec(compile(block, page, "exec"), {"__name__": "example"})
    assert not any(summary["warnings"] for summary in _summaries(desk) if summary not in before)


def _summaries(folder):
    return [json.loads(path.read_text()) for path in folder.glob("**/transfer.json")]


def test_pictures(predict, tmp_path, monkeypatch):
    """The commands make pictures of the same names and shapes as those that the root README shows."""
    first, second = [line for line in COMMANDS if "=readme" in line or "/readme" in line]
    small = ["--data.limit=2", "--model.attack.steps=1"]
    assert predict(*arguments(first)[1:], *small) == 0
    monkeypatch.chdir(tmp_path)
    assert main(arguments(second)) == 0
    shown = [name for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGES["README.md"])]
    assert [path.relative_to(tmp_path).as_posix() for path in (tmp_path / ".github").rglob("*.jpg")] == shown
    assert sum((ROOT / name).stat().st_size for name in shown) < 150_000
    for name in shown:
        # The legend has the classes that occur, and may need another line in another run.
        sizes = [Image.open(folder / name).size for folder in (ROOT, tmp_path)]
        assert sizes[0][0] == sizes[1][0]
        assert abs(sizes[0][1] - sizes[1][1]) <= 25


@pytest.mark.parametrize("command", commands("export"))
def test_export_commands(command, desk):
    assert main(arguments(command)) == 0
    assert (desk / "model.pt2").is_file()


@pytest.mark.parametrize("command", commands("report"))
def test_report_commands(command, desk):
    networks = {"deeplabv3plus_regnetx_002": True, "fpn_mobilenetv2": False}
    more = {"white_box": networks, "counts": matrices(24, networks=2), "data": {"dataset": "SyntheticScenes"}}
    for attack in ("pgd", "fgsm"):
        make_run(desk / "results" / attack / "version_0", attack, source="deeplabv3plus_regnetx_002", **more)
    assert main(arguments(command)) == 0
    for name in ("report.csv", "differences.csv", "report.md", "report.tex", "report.bib", "report.html"):
        assert (desk / "report" / name).is_file()
        assert f"`{name}`" in PAGES["lightning_attack/report/README.md"]


@pytest.mark.parametrize("command", commands("clean"))
def test_clean_commands(command, desk):
    make_run(desk / "results" / "small")
    assert main(arguments(command)) == 0


@pytest.mark.parametrize("command", [line for line in commands("figure") if "/readme" not in line])
def test_figure_commands(command, desk):
    names = [f"scene_{number:06}" for number in range(24)]
    networks = {"deeplabv3plus_regnetx_002": True, "fpn_mobilenetv2": False, "segformer_efficientvit": False}
    more = {"names": names, "source": "deeplabv3plus_regnetx_002", "white_box": networks}
    make_run(desk / "results" / "mine", **more, curve_steps=(10, 20), strips=(1, 3))
    make_run(desk / "results" / "eps_4", **more, eps=4 / 255)
    make_run(desk / "results" / "steps_40", **more, steps=40)
    for attack in ("pgd", "transegpgd"):
        make_run(desk / "results" / "scenes" / attack, attack, **more)
    assert main(arguments(command)) == 0
    words = arguments(command)
    assert all((desk / name).is_file() for name in words[words.index("--output") + 1 :])


@pytest.mark.parametrize("command", commands("study"))
def test_study_commands(command, monkeypatch, tmp_path):
    study = yaml.safe_load((ROOT / "configs" / "studies" / "scenes.yaml").read_text())
    study["data"]["dataset"]["init_args"] |= {"count": 1, "size": 32}
    study["attacks"] = [str(ROOT / file) for file in study["attacks"][:2]]
    (tmp_path / "configs" / "studies").mkdir(parents=True)
    (tmp_path / "configs" / "studies" / "scenes.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert main(arguments(command)) == 0
    expected = 0 if "dry" in command else 1 if "--cell" in command else 4
    assert len(list(tmp_path.glob("results/scenes/*/transfer.csv"))) == expected


def test_benchmark_commands(desk):
    """One after the other, as they stand there: the last compares what the first two have written."""
    study = yaml.safe_load((ROOT / "configs" / "benchmarks" / "scenes-1.yaml").read_text())
    study["data"]["dataset"]["init_args"] |= {"count": 1, "size": 32}
    study["networks"] = {name: study["networks"][name] for name in ("fpn", "segformer", "fpn_jpeg")}
    study |= {"sources": ["segformer"], "attacks": ["pgd"]}
    (desk / "configs" / "benchmarks").mkdir(parents=True)
    (desk / "configs" / "benchmarks" / "scenes-1.yaml").write_text(yaml.safe_dump(study))
    for command in (line for line in COMMANDS if line.split()[1] == "benchmark"):
        assert main(arguments(command)) == 0
    assert "| theirs |" in (desk / "leaderboard.md").read_text()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python -m pytest ")])
def test_tests_are_where_the_commands_look(command):
    place = ROOT / shlex.split(command)[-1]
    assert place.is_file() or list(place.rglob("test_*.py"))
