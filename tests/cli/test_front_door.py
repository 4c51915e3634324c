"""The first word, and attacks and files by names that hold in any folder."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_attack.cli import CONFIGS, main
from lightning_attack.cli.commands import COMMANDS
from lightning_attack.cli.errors import explain
from lightning_attack.cli.internals import option_names, type_of
from lightning_attack.cli.parser import with_paths
from lightning_attack.study.plan import Study, StudyError, cells

LIGHT = [
    [],
    ["--help"],
    ["--version"],
    ["predct"],
    ["-c", "x.yaml"],
    ["report", "--help"],
    ["report", "no", "--output=o"],
    ["figure", "--help"],
    ["figure", "matrix", "no", "--output=o.pdf"],
]


def test_what_needs_no_network_loads_no_torch():
    program = (
        "import sys\nfrom lightning_attack.cli import main\n"
        f"for words in {LIGHT}:\n"
        "    try:\n        main(words)\n    except SystemExit:\n        pass\n"
        "    print('loaded:', words, {'torch', 'lightning', 'jsonargparse'} & set(sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True, check=True
    )
    assert [line for line in ran.stdout.splitlines() if line.startswith("loaded:")] == [
        f"loaded: {words} set()" for words in LIGHT
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["pred"],
            "there is no command 'pred'\ndid you mean predict? known: predict, fit, validate, test, export",
        ),
        (["attack"], "did you mean predict?"),
        (["train"], "did you mean fit?"),
        (["xyz"], "there is no command 'xyz'\nknown: predict"),
        ([], "no command is given\nknown: predict"),
        (["--data.limit=3"], "the command comes first, such as `lightning-attack predict --data.limit=3`"),
        (["predict", "configs/attacks/pgd.yaml"], "for an attack: --model.attack=configs/attacks/pgd.yaml"),
        (["predict", "pgd"], "for an attack: --model.attack=pgd"),
        (["predict", "configs/ensemble.yaml"], "for a configuration file: -c configs/ensemble.yaml"),
        (["study", "configs/studies/scenes.yaml"], "for a configuration file: -c configs/studies/scenes.yaml"),
        (["predict", "--attack=pgd"], "there is no option 'attack'\ndid you mean --model.attack?"),
        (["predict", "--batch-size=4"], "did you mean --data.batch_size? Write --data.batch_size=4"),
        (["predict", "--seed=3"], "there is no option 'seed'\ndid you mean --model.seed?"),
        (
            ["predict", "--model.targets.a=net.pt2"],
            "write --model.targets='{a: {class_path: ExportedModel, init_args",
        ),
        (["predict", "--root=photos"], "did you mean --data.dataset.root, --data.train.root or --data.val.root?"),
        (["export", "--ckpt=a", "--to=b", "--size=256"], "write height and width in brackets: [256,256]"),
        (["predict", "--data.size=96,96"], "write several values in brackets: [96,96]"),
        (["predict", "--trainer.devicez=2"], "did you mean trainer.devices? --print_config shows all"),
        (["fit", "--lr=3"], "did you mean --model.lr?"),
        (["predict", "--model.targets=fpn"], "write --model.targets='{fpn: {class_path: TrainedModel, init_args: {fil"),
        (["predict", "--images=jpg"], "images: expected png, shards or none; given: jpg"),
        (["predict", "--trainer.devices=cuda:0"], "--trainer.accelerator=gpu --trainer.devices=[0]"),
        (["study", "--data.limit=2"], "it is written in the study's file\nwrite there: data: {limit: 2}"),
        (["attacks", "momentun"], "no attack has momentun in its line\ndid you mean momentum"),
    ],
)
def test_mistakes_at_the_front_door(words, says, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-attack"])
    assert main(words) == 2
    answer = capsys.readouterr().err
    assert says in answer
    assert len(answer.strip().splitlines()) <= 2


@pytest.mark.parametrize(("ends", "code"), [("raise SIGTERMException", 143), ("raise KeyboardInterrupt", 130)])
def test_a_training_that_a_signal_ends_says_so(ends, code, tmp_path, monkeypatch, capsys):
    """By its exit code, for a script that goes on after it."""
    (tmp_path / f"stopped_{code}.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from lightning.pytorch.utilities.exceptions import SIGTERMException\n\n\n"
        f"class Stopped(Callback):\n    def on_train_start(self, *_):\n        {ends}\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [
        "universal",
        "--trainer.accelerator=cpu",
        f"--trainer.callbacks=stopped_{code}.Stopped",
        "--trainer.logger=false",
    ]
    with monkeypatch.context() as change:
        change.setattr("signal.signal", lambda *_: None)  # Lightning ignores further signals from then on
        assert main(words) == code
    assert "stopped by a signal; --ckpt_path=FILE goes on" in capsys.readouterr().err


def test_an_unknown_attack_is_answered_with_few_names(capsys):
    assert main(["predict", "--model.attack=transegpdg"]) == 2
    answer = capsys.readouterr().err
    assert "there is no 'transegpdg'\ndid you mean transegpgd" in answer
    assert answer.partition("did you mean")[2].partition("?")[0].count("transegpgd") <= 5
    assert len(answer) < 500


@pytest.mark.parametrize("words", [["--model.attack=PGD"], ["--model.attack", "pgd"],
                                   ["--model.attack=configs/attacks/pgd.yaml"]])  # fmt: skip
def test_an_attack_by_name_is_its_file_and_nothing_of_the_default_stays(words, predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {"model": {"attack": {"class_path": "lightning_attack.attacks.segpgd", "init_args": {"eps": "1/255"}}}}
    quick = ["--data.limit=1", "--model.targets=null", "--run_name=a", "--trainer.accelerator=cpu"]
    assert predict(before, *words, *quick, "--model.attack.steps=1") == 0
    attack = yaml.safe_load((tmp_path / "results" / "a" / "config.yaml").read_text())["model"]["attack"]
    assert attack["class_path"] == "lightning_attack.attacks.pgd"
    assert attack["init_args"]["eps"] == "8/255"
    assert "beta" not in attack["init_args"]


def test_a_file_of_an_attack_beside_its_file_or_the_user(tmp_path, monkeypatch, capsys):
    """Both come before the package's file of that path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    targets = "{a_1: {class_path: TrainedModel}, a_1.5: {class_path: TrainedModel}}"
    (tmp_path / "runs" / "run.yaml").write_text(f"model: {{attack: configs/attacks/pgd.yaml, targets: {targets}}}\n")
    for folder, name in ((None, "PGD"), (tmp_path, "beside the user"), (tmp_path / "runs", "beside the file")):
        if folder:
            (folder / "configs" / "attacks").mkdir(parents=True)
            (folder / "configs" / "attacks" / "pgd.yaml").write_text(
                f"class_path: pgd\ninit_args: {{display_name: {name}}}\n"
            )
        with pytest.raises(SystemExit):
            main(["predict", "-c", "runs/run.yaml", "--print_config"])
        model = yaml.safe_load(capsys.readouterr().out)["model"]
        assert model["attack"]["init_args"]["display_name"] == name
        assert [*model["targets"]] == ["a_1", "a_1.5"]


def test_an_attack_by_name_in_a_file_of_the_user(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = {"data": {"limit": 1}, "trainer": {"accelerator": "cpu"}}
    for number, attack in enumerate(["pgd", "configs/attacks/pgd.yaml"]):
        model = {"attack": attack, "targets": None}
        assert predict(quick | {"model": model}, f"--run_name={number}", "--model.attack.steps=1") == 0
    first, second = ((tmp_path / "results" / name / "transfer.csv").read_text() for name in "01")
    assert first == second
    assert "pgd" in first


def test_files_beside_the_user_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = "--model.attack.attack"
    words = ["-c", "configs/ensemble.yaml", "--config=configs/default.yaml", f"{attack}=configs/attacks/pgd.yaml"]
    there = [str(CONFIGS / name) for name in ("ensemble.yaml", "default.yaml", "attacks/pgd.yaml")]
    assert with_paths(words) == ["-c", there[0], f"--config={there[1]}", f"{attack}={there[2]}"]
    (tmp_path / "configs" / "attacks").mkdir(parents=True)
    for file in ("ensemble.yaml", "default.yaml", "attacks/pgd.yaml"):
        (tmp_path / "configs" / file).write_text("model: {seed: 3}")
    assert with_paths(words) == words
    # A name is the package's attack, whatever lies here; the name of a class is that class.
    assert with_paths(["--model.attack=pgd"]) == [f"--model.attack={there[2]}"]
    untouched = ["--model.attack=APGD", "--model.attack=nothing", "--data.dataset=pgd", "-c", "a: {b: 1}"]
    assert with_paths(untouched) == untouched


def test_studies_take_names_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "-c", "configs/studies/scenes.yaml", "--dry-run", "--cell=3/8"]) == 0
    assert "segpgd_deeplabv3plus" in capsys.readouterr().out
    networks = {"fpn": {"class_path": "TrainedModel"}}
    found = cells(Study(networks, ["pgd", "configs/attacks/segpgd.yaml"], ["fpn"]))
    assert [cell.name for cell in found] == ["pgd_fpn", "segpgd_fpn"]
    assert [cell.attack for cell in found] == [str(CONFIGS / "attacks" / f"{name}.yaml") for name in ("pgd", "segpgd")]
    with pytest.raises(StudyError, match=r"there is no attack 'pdg'\ndid you mean .*pgd"):
        cells(Study(networks, ["pdg"], ["fpn"]))


def test_what_is_wrong_in_a_file_is_said_with_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: {target: {a: {class_path: SMPModel, init_args: {path: x}}}}")
    assert main(["predict", "-c", "mine.yaml"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no option 'model.target' (in 'mine.yaml')\ndid you mean model.targets?\n"
    )
    assert main(["study", "-c", "mien.yaml"]) == 2
    assert capsys.readouterr().err.endswith("\ndid you mean mine.yaml?\n")
    message = f"Parser key \"config\": File does not exist: '{tmp_path / 'mien.yaml'}'"
    assert explain(message, [], {}).endswith("\ndid you mean mine.yaml?")
    assert explain('Parser key "data.batch_size": Expected a int. Got value: four', [], {}) == (
        "data.batch_size: expected a whole number; given: four"
    )


@given(st.text(), st.lists(st.text()))
def test_any_message_of_the_parser_is_passed_on(message, options):
    kinds = {"attack": ["pgd"]}
    for text in (message, f'Parser key "model.attack": {message}', f"unrecognized arguments: {message}", message * 3):
        said = explain(text, options, kinds)
        assert isinstance(said, str)
    assert explain("Quite another wording", options, kinds) == "Quite another wording"


def test_without_the_internals_of_the_parser_messages_say_less():
    class Other:
        dest = "size"

    assert option_names(Other()) == set()
    assert type_of(Other()) is None


def test_the_table_of_commands_is_complete(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert not end.value.code
    text = capsys.readouterr().out
    assert all(f"    {name} " in text and command.does in text for name, command in COMMANDS.items())
