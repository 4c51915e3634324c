"""Studies: the cells that a file means, and runs that share networks and go on."""

import csv
import json
import re
import shlex
from functools import cache

import pytest
import yaml

from lightning_attack.attacks import Attack
from lightning_attack.cli import CONFIGS, main
from lightning_attack.cli import study as command
from lightning_attack.cli.launch import LaunchError
from lightning_attack.cli.parser import Parser
from lightning_attack.models import SegmentationModel
from lightning_attack.predict.passes import backward_passes
from lightning_attack.report.collect import collect
from lightning_attack.report.groups import group_runs
from lightning_attack.runs.commands import read_commands
from lightning_attack.runs.store import count_records
from lightning_attack.study.plan import Study, cells

NETWORKS = {
    name: {"class_path": "TrainedModel", "init_args": {"file": f"embedded:scenes_{name}"}}
    for name in ("fpn", "segformer")
}
STUDY = {
    "networks": NETWORKS,
    "sources": ["fpn", "segformer"],
    "attacks": {"none": {"class_path": "NoAttack"}, "one": "configs/attacks/fgsm.yaml"},
    "model": {"exact": True},
    "data": {"dataset": {"class_path": "SyntheticScenes", "init_args": {"count": 3, "size": 32}}, "batch_size": 2},
}
NAMES = ["none_fpn", "none_segformer", "one_fpn", "one_segformer"]


@pytest.fixture
def run_study(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])

    def run(*words, **changes):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(STUDY | changes))
        return main(["study", "-c", str(tmp_path / "s.yaml"), f"--results={tmp_path}", *words])

    return run


def noting(made):
    make = command.Shared.make

    def noted(self, kind, *args, **settings):
        made.append(make(self, kind, *args, **settings))
        return made[-1]

    return noted


def test_networks_are_loaded_once_and_see_clean_photos_once(run_study, predict, tmp_path, monkeypatch, capsys):
    made, seen = [], []
    look = SegmentationModel.forward
    monkeypatch.setattr(command.Shared, "make", noting(made))
    monkeypatch.setattr(
        SegmentationModel, "forward", lambda self, images: seen.append(len(images)) or look(self, images)
    )
    assert run_study() == 0
    assert len({*map(id, made)}) == len(NETWORKS) + 1, "and one data set"
    # For each cell a probe of the source and of each target; each network the three clean photos once, for all cells
    # together; for `one` scoring and a pass of the attack, each time, and before it two on noise: can it be attacked?
    # (`none` changes no image.) Each network once two images of noise at a time.
    assert sum(seen) == 4 * 3 + 2 * 3 + 2 * 2 * 3 + 2 * 3 + 2 * 2 + 2 * 2
    monkeypatch.undo()
    folder = tmp_path / "s"
    assert sorted(path.name for path in folder.iterdir()) == [*NAMES, "study.json"]
    assert json.loads((folder / "study.json").read_text()) == {"runs": NAMES}
    summary = json.loads((folder / "one_fpn" / "transfer.json").read_text())
    assert (summary["display_name"], [*summary["citations"]]) == ("FGSM", ["goodfellow2015fgsm"])
    rows = list(csv.DictReader((folder / "one_segformer" / "transfer.csv").open()))
    assert [(row["source"], row["target"], row["white_box"]) for row in rows] == [
        ("segformer", "segformer", "True"), ("segformer", "fpn", "False"),
    ]  # fmt: skip
    # The same run on its own, with networks of its own: they are called as among the targets.
    alone = {"source": NETWORKS["segformer"], "targets": NETWORKS, **STUDY["model"]}
    words = ["--model.attack=configs/attacks/fgsm.yaml", "--run_name=alone"]
    assert predict({"model": alone, "data": STUDY["data"]}, *words) == 0
    found = list(csv.DictReader((tmp_path / "results" / "alone" / "transfer.csv").open()))
    assert sorted(rows, key=str) == sorted(found, key=str)
    assert len(collected := collect([folder / "one_segformer", tmp_path / "results" / "alone"])[0]) == 2
    assert [len(group.runs) for group in group_runs(collected)[0]] == [2], "they stand in one table"
    # The command that the cell notes goes on in its folder, and so does its configuration.
    before = (folder / "one_segformer" / "transfer.csv").read_bytes()
    (line,) = read_commands(folder / "one_segformer")
    assert main(shlex.split(line)[2:]) == 0
    config, place = folder / "one_segformer" / "config.yaml", ("--run_name=one_segformer", f"--results={folder}")
    assert main(["predict", "-c", str(config), *place]) == 0
    assert (folder / "one_segformer" / "transfer.csv").read_bytes() == before
    # With other photos it is another study; the remedy is one that `study` has.
    data = yaml.safe_load(yaml.safe_dump(STUDY["data"]).replace("count: 3", "count: 2"))
    capsys.readouterr()
    assert run_study(data=data) == 2
    said = capsys.readouterr().err
    assert "none_fpn' is a run of other settings; choose another --name, the folder of all runs, or move this" in said
    assert "count: 3 before, 2 now" in said
    assert "--run_name" not in said.partition("is a run of")[2]


def test_shares_and_going_on(run_study, tmp_path, capfd):
    assert run_study("--cell=2/2") == 0
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["none_segformer", "one_segformer", "study.json"]
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.segment")}
    assert [count_records(tmp_path / "s" / name) for name in ("none_segformer", "one_segformer")] == [3, 3]
    capfd.readouterr()
    assert run_study() == 0
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith(("study:", "cell"))]
    assert lines[0].startswith("study: 4 cells of 3 photos in batches of 2 on cpu; folder: ")
    assert lines[0].endswith("s; 2 of them are done, going on")
    assert re.fullmatch(r"cell 1 of 4, none_fpn: .+ s; about .+ left for the study", lines[1])
    assert lines[2].startswith("cell 2 of 4, none_segformer: done already; about ")
    assert lines[4] == "cell 4 of 4, one_segformer: done already; all done"
    assert "3 images" in out
    assert re.search(r"│ clean +│ +[\d.]+ │ +[\d.]+ │", out)
    assert out.endswith(f"compare them: python main.py report {tmp_path / 's'} --output report\n")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [*NAMES, "study.json"]
    assert {path: path.stat().st_mtime_ns for path in records} == records, "finished images are not attacked again"
    report = json.loads((tmp_path / "s" / "one_fpn" / "transfer.json").read_text())
    assert "partial" not in report


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_share_without_cells(more, run_study, tmp_path, capsys):
    changes = {"sources": ["fpn"], "attacks": {"none": {"class_path": "NoAttack"}}}
    assert run_study("--cell=2/3", *more, **changes) == 0
    said = capsys.readouterr()
    assert said.out == "Nothing to do: of the study's 1 cell none is in the share --cell=2/3\n"
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_dry_run_makes_nothing(run_study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    attacks = {"vmi": {"class_path": "lightning_attack.attacks.vmi_fgsm", "init_args": {"steps": 3, "samples": 4}}}
    assert run_study("--dry-run", attacks=attacks, budgets=["4/255"], seeds=[0, 1], sources=["fpn"]) == 0
    printed = capsys.readouterr().out
    assert "vmi_fpn_eps4-255_seed1" in printed
    assert printed.split("all")[-1].split("│")[2].strip() == "90", "2 cells x 3 photos x 3 (1 + 4) passes"
    assert re.search(r"all +│ +│ +90 │ +about \d[\d. a-z]*(?:s|min) ", printed)
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_signal_ends_the_study(run_study, monkeypatch, tmp_path, capsys):
    ran = []

    class Stopped:
        exit_code = 143

        def __init__(self, words, *_):
            ran.append(words)

    monkeypatch.setattr(command, "CellCLI", Stopped)
    assert run_study() == 143
    assert len(ran) == 1
    said = capsys.readouterr().err
    assert "stopped in cell 1 of 4, none_fpn; 0 done before it. To go on: python main.py study -c " in said
    assert said.rstrip().endswith(f"s.yaml --results={tmp_path}")


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"sources": ["fnp"]}, [], "sources: there is no network 'fnp'\nknown: fpn, segformer"),
        ({"targets": ["x"]}, [], "targets: there is no network 'x'"),
        ({"seeds": []}, [], "attacks, sources and seeds must not be empty"),
        ({"attacks": ["configs/attacks/pdg.yaml"]}, [], "there is no file 'configs/attacks/pdg.yaml'"),
        ({"attacks": ["configs/attacks/pgd.yaml"] * 2}, [], "two files have one name"),
        ({"seeds": [1, 1]}, [], "two cells are named 'none_fpn_seed1'"),
        ({"attacks": {"a b": {"class_path": "NoAttack"}}}, [], "'a b_fpn' cannot be the name of a folder"),
        ({"attacks": {"a": {"class_path": "NoAtack"}}}, [], "there is no 'NoAtack'\ndid you mean NoAttack"),
        ({"budgets": [{"epz": 1}]}, [], "cell 'none_fpn_epz1': there is no option 'epz'"),
        ({"nets": {}}, [], "there is no option 'nets'"),
        ({"data": None}, [], "predict needs data.dataset"),
        ({"data": STUDY["data"] | {"batch_size": 0}}, [], "s.yaml: batch_size=0 must be 1 or more"),
        ({"model": {"seed": 4}}, [], "model.seed: a study says it in"),
        ({"budgets": ["0/255"], "attacks": ["configs/attacks/pgd.yaml"]}, [], "cell 'pgd_fpn_eps0-255': "),
        ({"seeds": ["x"]}, [], "s.yaml: seeds: "),
        ({}, ["--cell=3/2"], "--cell=3/2: give k/n with k from 1 to n"),
        ({}, ["--dry_rum"], "there is no option 'dry_rum'"),
        ({"trainer": {"devicez": 1}}, [], "cell 'none_fpn': there is no option 'trainer.devicez'"),
        ({"sources": "fpn"}, [], "sources: expected a list; given: fpn\nwrite it in brackets: [fpn]"),
        ({"networks": {"fpn": "fpn"}}, [], "networks takes networks by names of your own; given"),
        ({"attacks": [""]}, [], "attacks: '' has no name; give one"),
        ({"attacks": {"mine": ""}}, [], "attacks: '' has no name; give one"),
        ({"attacks": {"theirs": "/"}, "budgets": [{"eps": 1, "norm": "l2"}]}, [], "'/' can be checked within an L-inf"),
        ({"attacks": {"theirs": "/"}, "budgets": [{"step_size": 1}]}, [], "{step_size: 1} has no eps, by which the"),
        ({"networks": {"fpn": None}}, [], "networks: 'fpn' is empty\nwrite fpn: {class_path: TrainedModel"),
        ({}, ["-c", "b.yaml"], "a study has one file; given: "),
        ({}, ["-cb.yaml"], "s.yaml and b.yaml"),
        ({"attacks": ["pgd", {"mi_fgsm": {"steps": 3}}]}, [], "{mine: {class_path: mi_fgsm, init_args: {steps: 3}}"),
    ],
)
def test_mistakes(run_study, tmp_path, capsys, changes, words, said):
    assert run_study(*words, **changes) == 2
    message = capsys.readouterr().err
    assert said in message, message
    assert len(message.strip().splitlines()) <= 2, message
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "r"), "error: cell 'none_fpn': 'r' cannot be used; choose a place"),
        (LaunchError("others do not come"), "error: others do not come\n"),
    ],
)
def test_errors_of_a_cell_that_are_no_mistake_in_it(error, said, run_study, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.setattr(command, "CellCLI", fails)
    assert run_study() == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a: [", "- a", "", "model: 3", "networks:"])
def test_files_that_are_no_study(tmp_path, capsys, content):
    (tmp_path / "s.yaml").write_text(content)
    assert main(["study", "-c", str(tmp_path / "s.yaml")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "s.yaml") in said
    assert "model: {" not in said, "which no study has"
    assert main(["study"]) == 2
    assert "study needs its file" in capsys.readouterr().err
    assert main(["study", "-c", str(tmp_path / "t.yaml")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_images_that_cannot_be_used_are_left_out_and_the_next_cell_runs(run_study, tmp_path):
    (tmp_path / "theirs").mkdir()
    data = STUDY["data"] | {"adversarial_root": str(tmp_path / "theirs")}
    assert run_study("--name=t", data=data, attacks={"none": {"class_path": "NoAttack"}}, on_error="skip") == 3
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["none_fpn", "none_segformer", "study.json"]
    assert run_study("--name=u", data=data, attacks={"none": {"class_path": "NoAttack"}}) == 2


@cache
def attacks_of_files():
    """The attacks of all files but those of hundreds of passes, with two steps: whether their cost can be known does
    not depend on that."""
    found = {}
    for file in sorted((CONFIGS / "attacks").glob("*.yaml")):
        if file.stem in ("sea", "alma_prox", "dag"):
            continue
        parser = Parser()
        parser.add_subclass_arguments(Attack, "attack")
        found[file.stem] = attack = parser.instantiate(parser.parse_args([f"--attack={file}"])).attack
        if isinstance(getattr(attack, "steps", None), int):
            attack.steps = 2
    return found


@pytest.mark.parametrize(("count", "by"), [(1, "logits"), (2, "logits"), (2, "loss")])
def test_cost_of_every_file(count, by):
    """Where the stand-in is no source for an attack, the cost is not known; nothing else stops a study."""
    unknown = {name for name, attack in attacks_of_files().items() if backward_passes(attack, count, by) is None}
    of_members = {"adaea", "cwa", "source_rotation", "svre"}
    on_features = {"bfa", "fia", "fspgd", "naa", "rp_pgd"}  # an ensemble by logits has no layer of its own
    assert unknown == (of_members if count == 1 else on_features if by == "logits" else set())


def test_a_home_folder_and_variables_in_results(run_study, tmp_path, monkeypatch):
    """As in `--results=~/runs` and in YAML, where no shell replaces them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "disk"))
    found = []
    monkeypatch.setattr(command, "run_study", lambda plan, file, folder, *_, **more: found.append(folder) or 1)
    run_study("--results=~/runs")
    main(["benchmark", "-c", str(tmp_path / "s.yaml"), "--results=$SCRATCH/runs", "--output=~/a.json"])
    assert found == [tmp_path / "home" / "runs" / "s", tmp_path / "disk" / "runs" / "s"]


def test_names_of_any_kind(tmp_path):
    (cell,) = cells(Study(NETWORKS, ["pgd"], ["fpn"], budgets=[{"size": [3, 5], "eps": "4/255"}]))
    assert cell.name == "pgd_fpn_size3-5_eps4-255"


def test_attacks_beside_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("class_path: NoAttack")
    (cell,) = cells(Study(NETWORKS, ["mine.yaml"], ["fpn"]), tmp_path)
    assert cell.attack == str(tmp_path / "mine.yaml")
