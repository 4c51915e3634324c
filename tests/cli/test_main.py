"""The command line as a user meets it: whole runs, in a process of their own where that matters."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lightning_attack.attacks import PRESETS, Attack
from lightning_attack.callbacks.transfer_metrics import COLUMNS
from lightning_attack.cli import CONFIGS, AttackCLI, main
from lightning_attack.cli.parser import Parser, UsageError
from lightning_attack.data import SyntheticScenes
from lightning_attack.runs.store import RecordStore

ATTACKS = sorted((CONFIGS / "attacks").glob("*.yaml"))


def the_run(results):
    """The folder of the only run."""
    (folder,) = [path.parent for path in results.rglob("transfer.json")]
    return folder


def rows(folder):
    return list(csv.DictReader((folder / "transfer.csv").open()))


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """`python main.py predict` with no further words but where to write."""
    results = tmp_path_factory.mktemp("default")
    process = subprocess.run(
        [sys.executable, str(CONFIGS.parent / "main.py"), "predict", f"--results={results}"],
        cwd=results,  # any folder: the default must find its own files
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process, the_run(results)


def test_default_run_leaves_the_promised_folder(default_run):
    process, folder = default_run
    assert folder.parts[-2:] == ("transegpgd_deeplabv3plus_regnetx_002", "version_0")
    names = {path.name.split(".")[0] if "tfevents" in path.name else path.name for path in folder.iterdir()}
    assert {"config.yaml", "transfer.csv", "transfer.json", "images", "events"} <= names
    assert len(list((folder / "images").glob("*.png"))) == 16
    assert [path.name for path in folder.rglob(".*")] == [".lock"], "an unfinished file is left"

    table = rows(folder)
    assert tuple(table[0]) == COLUMNS
    assert [row["white_box"] for row in table] == ["True", "False", "False"]
    for row in table:
        assert row["target"] in process.stdout, "the console table lacks a network"


def test_embedded_networks_are_good_but_not_perfect_and_the_attack_transfers(default_run):
    for row in rows(default_run[1]):
        clean, adversarial = float(row["clean_miou"]), float(row["adversarial_miou"])
        assert 0.80 <= clean < 0.95, row["target"]
        assert float(row["drop"]) == pytest.approx(clean - adversarial)
        assert adversarial < clean - (0.3 if row["white_box"] == "True" else 0.02), row["target"]


def test_readme_shows_the_table_of_the_default_run(default_run):
    readme = (CONFIGS.parent / "README.md").read_text()
    shown = re.search(r"<!-- default-run -->(.*)<!-- /default-run -->", readme, re.DOTALL)[1]
    for row in rows(default_run[1]):
        (line,) = [line for line in shown.splitlines() if row["target"] in line]
        clean, adversarial = map(float, line.split("|")[2:4])
        assert clean == pytest.approx(100 * float(row["clean_miou"]), abs=0.05)
        # Another processor rounds otherwise, and 20 sign steps amplify that.
        assert adversarial == pytest.approx(100 * float(row["adversarial_miou"]), abs=2)


def test_embedded_images_stay_in_the_budget(default_run):
    scenes = SyntheticScenes(16)
    for scene in (scenes[index] for index in range(16)):
        saved = np.array(Image.open(default_run[1] / "images" / f"{scene.name}.png")).astype(int)
        assert 0 < abs(saved - scene.image.astype(int)).max() <= 8


def test_saved_configuration_gives_the_same_numbers(default_run, predict, tmp_path):
    """On the first batch: the same images and, photo by photo, the same counts."""
    folder = default_run[1]
    assert predict("-c", folder / "config.yaml", f"--results={tmp_path / 'again'}", "--data.limit=8") == 0
    again = the_run(tmp_path / "again")
    images = [image.name for image in (again / "images").iterdir()]
    assert len(images) == 8
    for name in images:
        assert (again / "images" / name).read_bytes() == (folder / "images" / name).read_bytes()
    of_eight, of_sixteen = (list(RecordStore(one)) for one in (again, folder))
    assert len(of_eight) == 8
    for found, expected in zip(of_eight, of_sixteen, strict=False):
        assert np.array_equal(found.counts, expected.counts)


def test_report_has_stages_and_costs(default_run):
    report = json.loads((default_run[1] / "transfer.json").read_text(), parse_constant=pytest.fail)
    assert report["passes_per_image"] == {"forward": 21, "backward": 20}  # one forward for the clean prediction
    assert report["perturbation"]["linf"] == pytest.approx(8)
    curves = report["curves"]
    assert curves["stage_two"][0] == 0
    assert curves["stage_two"][10:] == [16] * 10, "every image is in stage two from half of the steps on"
    assert curves["p_t"][-1] < curves["p_t"][0] - 0.2
    assert all(0 < share < 0.5 for share in curves["p_h"][10:]), "the mean of a skewed K selects less than half"
    assert set(report["targets"][0]["clean_iou"]) == set(SyntheticScenes.classes)


@pytest.mark.parametrize("file", ATTACKS, ids=lambda file: file.stem)
def test_every_attack_file_gives_an_attack_of_its_name(file):
    parser = Parser()
    parser.add_subclass_arguments(Attack, "attack")
    assert parser.instantiate(parser.parse_args([f"--attack={file}"])).attack.name == file.stem


MIT = ["--model.source=SMPModel", "--model.source.arch=segformer", "--model.source.encoder_name=mit_b0"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("no_attack", []),
        ("fgsm", []),
        ("transegpgd_misclassified", []),
        ("transfer_best", []),
        ("us_mm", ["--data.limit=2"]),  # mixes photos
        ("fia", []),  # looks at features
        ("aes", []),
        ("apgd", []),
        ("gi_fgsm", []),
        ("pi_fgsm", []),
        ("sea", []),
        ("alma_prox", []),
        ("svre", ["-c", CONFIGS / "ensemble.yaml"]),
        ("pna", [*MIT, "--model.source.num_classes=8"]),  # changes attention
    ],
)
def test_attack_files_run(name, more, predict, tmp_path):
    """One of each loop and of each need: features, attention, members, another photo. What the others do on a device,
    tests/attacks/test_synchronisation.py has."""
    words = [f"--model.attack={CONFIGS / 'attacks' / name}.yaml", "--data.limit=1", *more]
    if name != "no_attack":
        words.append("--model.attack.steps=2")
    small = ("--data.dataset.size=32", "--model.probe_size=[32,32]", "--model.targets=null")
    assert predict(*words, *small) == 0
    (row,) = rows(the_run(tmp_path / "results"))
    assert row["attack"] == name


def test_minimal_norm_attacks_are_reported_by_norm(predict, tmp_path):
    attack = f"--model.attack={CONFIGS / 'attacks' / 'dag.yaml'}"
    quick = ("--model.attack.steps=40", "--model.attack.step_size=0.1", "--model.attack.threshold=0.3")
    assert predict(attack, *quick, "--model.quantize=false", "--data.limit=3", "--model.targets=null") == 0
    report = json.loads((the_run(tmp_path / "results") / "transfer.json").read_text())
    found = report["minimal_norm"]
    assert found["solved"] == report["curves"]["success"][-1] == 1
    # Without rounding the images are the solutions.
    assert found["median_linf"] == pytest.approx(report["perturbation"]["linf_median"], rel=1e-4)
    assert 0 < found["median_linf"] <= report["perturbation"]["linf"]
    assert report["targets"][0]["adversarial_accuracy"] < 0.71


def test_fractions_are_numbers_and_parts_can_be_swapped(predict, tmp_path):
    code = predict(
        "--model.attack=lightning_attack.attacks.segpgd",
        "--model.attack.eps=4/255",
        "--model.attack.steps=2",
        "--model.attack.gradient_transforms+=Momentum",
        "--model.attack.input_transforms+=InputDiversity",
        "--model.attack.input_transforms.prob=1.0",
        "--data.limit=1",
        "--model.targets=null",
    )
    assert code == 0
    report = json.loads((the_run(tmp_path / "results") / "transfer.json").read_text())
    attack = report["settings"]["attack"]
    assert report["attack"] == "segpgd"
    assert attack["norm"] == {"class": "Linf", "eps": 4 / 255}
    assert attack["gradient_transforms"] == [{"class": "Momentum", "decay": 1.0}]
    assert report["perturbation"]["linf"] == pytest.approx(4)


def test_every_setting_of_transegpgd_from_the_command_line(predict, tmp_path):
    code = predict(
        "--model.attack.gamma=0.2",
        "--model.attack.beta=0.3",
        "--model.attack.threshold=0.25",
        "--model.attack.kl=clean||adversarial",
        "--model.attack.switch=Switch",
        "--model.attack.switch.at=0.25",
        "--model.attack.switch.fooled=0.9",
        "--model.attack.switch.all_fooled=false",
        "--model.attack.temperature=3",
        "--model.attack.norm=l2",
        "--model.attack.eps=2",
        "--model.attack.steps=2",
        "--data.limit=1",
        "--model.targets=null",
    )
    assert code == 0
    attack = json.loads((the_run(tmp_path / "results") / "transfer.json").read_text())["settings"]["attack"]
    assert attack["norm"] == {"class": "L2", "eps": 2}
    assert attack["objective"] == {
        "class": "Staged",
        "stages": [
            {"class": "FoolAllPixels", "gamma": 0.2, "temperature": 3, "power": 0},
            {"class": "TransferablePixels", "beta": 0.3, "kl": "clean||adversarial", "threshold": 0.25}
            | {"temperature": 3, "power": 0},
        ],
        "switches": [{"class": "Switch", "at": 0.25, "fooled": 0.9, "all_fooled": False}],
    }


def test_a_network_of_ones_own_by_class_path(predict, tmp_path, monkeypatch):
    module = tmp_path / "my_networks.py"
    module.write_text(
        "from torch import nn\n\n\ndef build(classes: int) -> nn.Module:\n    return nn.Conv2d(3, classes, 1)\n\n\n"
        "class Mine(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.net = build(8)\n\n"
        "    def forward(self, x):\n        return {'out': self.net(x)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "mine.yaml"
    config.write_text(
        "model:\n  source: {class_path: my_networks.Mine}\n  targets:\n"
        "    by_function: {class_path: my_networks.build, init_args: {classes: 8}}\n"
    )
    assert predict("-c", config, "--data.limit=1", "--model.attack.steps=1") == 0
    assert [row["target"] for row in rows(the_run(tmp_path / "results"))] == ["mine", "by_function"]


def mistake(*arguments, says):
    return pytest.param(arguments, says, id=says[:40])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        mistake("--model.attack=pdg", says="did you mean pgn, pgd or dag? all: the files of"),
        mistake("--model.attack=configs/attacks/pdg.yaml", says="there is no file 'configs/attacks/pdg.yaml'"),
        mistake("-c", str(CONFIGS / "attacks" / "pgd.yaml"), says="this file describes one part"),
        mistake("--model.attack.norm=l2", says="norm='l2' needs eps"),
        mistake("--run_name=../x", says="run_name='../x'"),
        mistake("--trainer.fast_dev_run=true", says="use data.limit for less"),
        mistake("--model.attack.epz=3", says="did you mean eps?"),
        mistake("--model.attck=3", says="did you mean model.attack?"),
        mistake("--data.limt=3", says="did you mean data.limit?"),
        mistake("--model.source=SMPModl", says="did you mean SMPModel"),
        mistake("--model.source=torch.nn.Identityy", says="there is no 'torch.nn.Identityy'"),
        mistake("--model.attack.eps=0", says="eps=0"),
        mistake("--model.attack.eps=-8/255", says="eps='-8/255': must be a number above 0"),
        mistake("--model.attack.steps=0", says="steps=0: must be 1 or more"),
        mistake("--model.attack.gamma=1.5", says="gamma=1.5: must be between 0 and 1"),
        mistake("--data.limit=0", says="limit=0 must be 1 or more"),
        mistake("--image_writer.workers=0", says="workers=0: must be 1 or more"),
        mistake("--data.dataset=ImageFolder", "--data.dataset.root=nowhere", says="no folder 'nowhere'"),
        mistake("--data.dataset=VOCSegmentation", "--data.dataset.root=nowhere", says="no PASCAL VOC in 'nowhere'"),
        mistake("--model.source.file=embedded:scenes", says="there are embedded:scenes_"),
        mistake("-c", "nowhere.yaml", says="File does not exist"),
        mistake("--trainer.accelerator=abacus", says="abacus"),
        mistake("--trainer.precision=bf16-true", says="use 32-true or bf16-mixed"),
    ],
)
def test_mistakes_are_answered_in_two_lines(arguments, says, predict, tmp_path, capsys):
    assert predict(*arguments) == 2
    answer = capsys.readouterr().err.strip()
    assert says in answer
    assert answer.startswith("error: ")
    assert len(answer.splitlines()) <= 2
    assert not (tmp_path / "results").exists(), "something was written"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modell: 3", "there is no option 'modell' (in '{file}')\ndid you mean model?"),
        ("model: {atack: 3}", "there is no option 'model.atack' (in '{file}')\ndid you mean model.attack?"),
        ("model: {attack: {class_path: PDG}}", "model.attack: there is no 'PDG'\ndid you mean pgn, pgd or dag?"),
        ("model: [", "'{file}', line 1 is not YAML: "),
    ],
)
def test_mistakes_in_a_file_too(text, says, predict, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert predict("-c", file) == 2
    assert capsys.readouterr().err.startswith("error: " + says.replace("{file}", str(file)))


def photos(folder, count=3, size=(40, 48)):
    """Photos in `folder/photos`, masks of two classes in `folder/masks`."""
    for kind in ("photos", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "photos" / f"{number}.png")
        Image.fromarray((image[..., 0] > 127).astype(np.uint8)).save(folder / "masks" / f"{number}.png")


def folder_arguments(folder, classes='["a","b","c","d","e","f","g","h"]'):
    return [
        "--data.dataset=ImageFolder",
        f"--data.dataset.root={folder / 'photos'}",
        f"--data.dataset.masks={folder / 'masks'}",
        f"--data.dataset.classes={classes}",
        "--data.batch_size=1",
    ]


def _break_mask(folder):
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(folder / "masks" / "2.png")


def _shrink_mask(folder):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "masks" / "2.png")


def _cut_photo(folder):
    photo = folder / "photos" / "2.png"
    photo.write_bytes(photo.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "masks" / "2.png").unlink(), "1 of 3 photos have no mask"),
        (_break_mask, "mask of '2' holds the class 9"),
        (_shrink_mask, "mask of '2' is 4x4, but its photo is 40x48"),
        (_cut_photo, "2.png' cannot be read"),
        (lambda folder: [photo.unlink() for photo in (folder / "photos").iterdir()], "no photos in"),
    ],
)
def test_bad_photos_are_found_before_anything_is_written(damage, says, predict, tmp_path, capsys):
    photos(tmp_path)
    damage(tmp_path)
    assert predict(*folder_arguments(tmp_path)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_class_counts_must_agree(predict, tmp_path, capsys):
    photos(tmp_path)
    assert predict(*folder_arguments(tmp_path, '["a","b"]')) == 2
    assert "has 8 classes, but the data has 2" in capsys.readouterr().err
    other = tmp_path / "other.yaml"
    other.write_text(
        "model: {targets: {small: {class_path: SMPModel, init_args: "
        "{arch: fpn, encoder_name: tu-test_resnet, num_classes: 3}}}}"
    )
    assert predict("-c", other) == 2
    assert "target 'small' has 3 classes, source 'deeplabv3plus_regnetx_002' has 8" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_checkpoint_of_another_network(predict, tmp_path, capsys):
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    config = tmp_path / "smp.yaml"
    config.write_text(
        "model: {source: {class_path: SMPModel, init_args: {arch: fpn, encoder_name: tu-test_resnet, "
        f"num_classes: 8, weights: {tmp_path / 'other.safetensors'}}}}}}}"
    )
    assert predict("-c", config) == 2
    assert "checkpoint of another network" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["fgsm", "segpgd", "mi_fgsm"])
def test_another_attack_by_its_class_path_keeps_nothing_of_the_default(name, predict, tmp_path):
    assert predict(f"--model.attack=lightning_attack.attacks.{name}", "--data.limit=1", "--model.targets=null") == 0
    report = json.loads((the_run(tmp_path / "results") / "transfer.json").read_text())
    preset = next(preset for preset in PRESETS if preset.__name__ == name)
    assert report["settings"]["attack"] == preset().settings()


def test_options_of_a_class_in_a_file(predict, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("data: {dataset: {class_path: ImageFolder, init_args: {rot: x}}}")
    assert predict("-c", tmp_path / "bad.yaml") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: there is no option 'rot'"
    known = (
        "classes, ignore_index, label_map, label_offset, mask_pattern, mask_suffix, masks, palette, root, white_level"
    )
    assert second == f"did you mean root? known: {known}"


def test_mistakes_in_fit(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    config = str(CONFIGS / "fit" / "scenes_fpn.yaml")
    assert main(["fit", "-c", config, "--model.network.init_args.num_classes=4"]) == 2
    assert "data.train has 8 classes, the network has 4" in capsys.readouterr().err


def test_results_must_be_a_folder(predict, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert predict(f"--results={tmp_path / 'file'}", "--data.limit=1") == 2
    assert "file': a part of this path is a file, not a folder" in capsys.readouterr().err


def test_a_run_of_the_same_name_goes_on_or_is_refused(predict, tmp_path, capsys):
    quick = ("--run_name=mine", "--data.limit=1", "--model.attack.steps=1", "--model.targets=null")
    assert predict(*quick) == 0
    assert (tmp_path / "results" / "mine" / "transfer.csv").is_file()
    table = (tmp_path / "results" / "mine" / "transfer.csv").read_text()
    assert predict(*quick, "--data.batch_size=3") == 0
    assert (tmp_path / "results" / "mine" / "transfer.csv").read_text() == table
    capsys.readouterr()
    assert predict(*quick, "--model.attack.eps=4/255", "--data.every=2") == 2
    said = capsys.readouterr().err
    assert "is a run of other settings; choose another --run_name, or --fresh=true" in said
    assert f"  model.attack.norm.eps: {8 / 255} before, {4 / 255} now\n" in said
    assert "  data.every: 1 before, 2 now\n" in said
    assert predict(*quick, "--model.attack.eps=4/255", "--fresh=true") == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["mine", "mine.old_0"]


def test_photos_of_ones_own_without_masks(predict, tmp_path):
    photos(tmp_path)
    root = tmp_path / "photos"
    with pytest.warns(match="you gave no model.source, so it is that of the default configuration"):
        assert predict("--data.dataset=ImageFolder", f"--data.dataset.root={root}", "--data.batch_size=1") == 0
    folder = the_run(tmp_path / "results")
    source = next(row for row in rows(folder) if row["white_box"] == "True")
    assert float(source["clean_miou"]) == 1, "the source's clean prediction is the label"
    assert {path.name for path in (folder / "images").iterdir()} == {"0.png", "1.png", "2.png"}


def test_fit_makes_a_network_that_predict_takes(run, tmp_path):
    run(
        "fit",
        "-c",
        "configs/fit/scenes_fpn.yaml",
        f"--trainer.logger.init_args.save_dir={tmp_path}",
        "--trainer.max_epochs=1",
        "--data.train.init_args.count=64",
        "--data.val.init_args.count=4",
        "--data.num_workers=0",
    )
    (weights,) = tmp_path.rglob("weights.safetensors")
    assert weights.stat().st_size < 3e6
    run(
        "predict",
        f"--model.source.file={weights}",
        "--model.targets=null",
        "--data.limit=1",
        "--model.attack.steps=1",
        f"--results={tmp_path / 'results'}",
    )
    (row,) = rows(the_run(tmp_path / "results"))
    assert row["source"] == "fpn_mobilenetv2_050"


@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_fast_processes_wait_for_slow_ones(predict, monkeypatch, capsys, strategy):
    def say(command_line):
        raise UsageError(f"patience of {command_line.trainer.strategy._timeout}")

    monkeypatch.setattr(AttackCLI, "before_predict", say)
    assert predict("--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.strategy={strategy}") == 2
    assert "patience of 12:00:00" in capsys.readouterr().err
