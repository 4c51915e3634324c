"""A key that stands twice, and files that are not YAML, are errors wherever a file is read."""

import re
from contextlib import nullcontext

import pytest
import yaml

from lightning_attack.cli import main
from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.named import named
from lightning_attack.cli.parser import with_paths
from lightning_attack.cli.preset_names import with_presets
from lightning_attack.cli.weight_files import refuse_files
from lightning_attack.cli.yaml_files import check_yaml, read_study

ATTACK = "class_path: lightning_attack.attacks.fgsm\ninit_args:\n  eps: 4/255\n  eps: 8/255\n"
STUDY = """networks: {a: {class_path: TrainedModel, init_args: {file: 'embedded:scenes_fpn'}}}
sources: [a]
attacks: [ATTACK]
data: {dataset: {class_path: SyntheticScenes, init_args: {count: 1}}}
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice in 'FILE', lines 1 and 3\nthe values are '1' and '3'"),
        ("a: {b: 1, c: 2, b: x}\n", "'b' stands twice in 'FILE', line 1\nthe values are '1' and 'x'"),
        ("a:\n- b: 1\n  c: [2]\n  b: [3]\n", "'b' stands twice in 'FILE', lines 2 and 4\nthe values are '1' and '[3]'"),
        ("\ufeffa: 1\n'a': 2\n", "'a' stands twice in 'FILE', lines 1 and 2"),
        ("a:\n  seed: 010\n", "'seed: 010' in 'FILE', line 2, is 8 to YAML (an octal number)\nwrite seed: 8 for this"),
        ("a: 1:30\n", "'a: 1:30' in 'FILE', line 1, is 90 to YAML (a number to the base 60)"),
        ("a: [1\nb: 2\n", "'FILE', line 2 is not YAML"),
        ("a:\n\tb: 1\n", "'FILE', line 2 is not YAML: found character '\\t' that cannot start any token\nindent with"),
        (
            "model: {source: WEIGHTS}",
            "model.source: 'WEIGHTS' is a file of weights, not a network\nwrite source: {class",
        ),
        ("networks: {a: WEIGHTS}", "networks.a: 'WEIGHTS' is a file of weights, not a network\nwrite a: {class_path"),
        ("model: {source: {init_args: {members: [WEIGHTS]}}}", "write - {class_path: SMPModel, init_args: {weights:"),
        ("model: {attack: WEIGHTS}", "'WEIGHTS' is a file of weights, not an attack\nto attack it: --model.source=SMP"),
        ("model: {source: my_net.py}", "'my_net.py' is a file of Python, not of settings\ngive a class or function"),
    ],
)
def test_what_is_wrong_and_where(text, says, tmp_path):
    file, weights = tmp_path / "a.yaml", tmp_path / "no_suffix"
    file.write_text(text.replace("WEIGHTS", str(weights)), "utf-8")
    weights.write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(UsageError) as error:
        check_yaml(file)
    assert says in str(error.value).replace(str(file), "FILE").replace(str(weights), "WEIGHTS")
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 0\nb: 0.5\nc: '010'\nd: 0x1f\ne: [010]\nf: 10:x\n",
        "a: 1\nA: 2\n",
        "a: 1\nb: {c: 2}\n",
        "hello",
        "model: {source: {class_path: mine.build, init_args: {network: WEIGHTS, config: mine.py}}}",
        "model: {source: {class_path: mine.build, init_args: {}, dict_kwargs: {network: WEIGHTS, attack: mine.py}}}",
        "1: a\n'1': b\n",
        "x: &x {a: 1}\ny: {<<: *x, a: 2}\nz: [*x, *x]\n",
        "- a: 1\n- a: 2\n",
        "networks: {a_1: {}, a_1.5: {}}\nmodel: {targets: {a_1: {}, a_1.5: {}}}\nattacks: {a: pgd, a.b: pgd}\n",
        "model: {source: a.yaml}\n",
    ],
)
def test_what_is_right(text, tmp_path):
    (tmp_path / "mine.ckpt").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.yaml").write_text(text.replace("WEIGHTS", str(tmp_path / "mine.ckpt")))
    check_yaml(tmp_path / "a.yaml")
    yaml.safe_load(text)


def test_options_of_classes_of_the_user_may_have_any_name(tmp_path):
    (tmp_path / "mine.ckpt").write_bytes(b"PK\x03\x04")
    file = yaml.compose(str(tmp_path / "mine.ckpt"))
    for name in ("network", "attack", "attacks"):
        refuse_files(["model", "source", name], file, in_file=False)
    for keys in (["model", "attack"], ["attacks"], ["model", "source"]):
        with pytest.raises(UsageError, match="is a file of weights"):
            refuse_files(keys, file, in_file=False)


@pytest.mark.parametrize(
    "command", ["predict", "fit", "validate", "attack", "attack in a file", "study", "attack of a study"]
)
def test_every_command_that_reads_a_file(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, twice = tmp_path / "a.yaml", tmp_path / "twice.yaml"
    twice.write_text(ATTACK)
    words = {
        "attack": ["predict", f"--model.attack={twice}"],
        "attack in a file": ["predict", "-c", str(file)],
        "study": ["study", "-c", str(file)],
        "attack of a study": ["study", "-c", str(file), "--dry-run"],
    }.get(command, [command, "-c", str(file)])
    text = {
        "attack in a file": f"model: {{attack: {twice}}}\n",
        "study": STUDY + "sources: [a]\n",
        "attack of a study": STUDY.replace("ATTACK", str(twice)),
    }.get(command, "data: {batch_size: 2}\ndata: {batch_size: 3}\n")
    file.write_text(text)
    assert main(words) == 2
    said = capsys.readouterr().err
    name = twice if command.startswith("attack") else file
    assert f"stands twice in '{name}', line" in said
    assert not list(tmp_path.glob("results*"))


def test_files_that_a_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "twice.yaml").write_text(ATTACK)
    (tmp_path / "parts" / "empty.yaml").write_text("# nothing\n")
    file = tmp_path / "parts" / "a.yaml"
    for text, says in (
        ("data: twice.yaml", "'eps' stands twice in"),
        ("model: {targets: {a: empty.yaml}}", "has no settings"),
        ("model: {source: {class_path: mine.build, init_args: {config: twice.yaml}}}", None),  # a file of theirs
    ):
        file.write_text(text)
        inline = re.sub(r"(twice|empty)", r"parts/\1", f"{{{text}}}")
        with pytest.raises(UsageError, match=says) if says else nullcontext():
            check_yaml(file)
        with pytest.raises(UsageError, match=says) if says else nullcontext():
            with_paths(["-c", inline])


def test_an_empty_file_of_a_part(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    for option in ("--model.attack", "--model.source", "--data"):
        with pytest.raises(UsageError, match=r"empty.yaml' has no settings"):
            with_paths([f"{option}={tmp_path / 'empty.yaml'}"])
    with_paths([f"--model.source.config={tmp_path / 'empty.yaml'}"])


def test_what_the_user_named_in_a_file_beside_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text("data: b.yaml\n")
    (tmp_path / "b.yaml").write_text("dataset: {class_path: ImageFolder}\n")
    assert named(["-c", str(tmp_path / "a.yaml")], ["data.dataset", "model.source"]) == {"data.dataset"}


def test_names_of_networks_are_text(predict, tmp_path, capsys):
    """YAML reads the keys `101` and `yes` as a number and a truth value."""
    file = tmp_path / "names.yaml"
    file.write_text(
        "model:\n  targets:\n"
        "    101: {class_path: TrainedModel, init_args: {file: 'embedded:scenes_fpn'}}\n"
        "    yes: {class_path: TrainedModel, init_args: {file: 'embedded:scenes_segformer'}}\n"
    )
    small = ("--data.limit=1", "--data.dataset.size=32")
    assert predict("-c", file, "--run_name=run", "--model.attack=fgsm", *small) == 0
    rows = (tmp_path / "results" / "run" / "transfer.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:]] == ["deeplabv3plus_regnetx_002", "101", "yes"]
    assert predict("-c", tmp_path / "results" / "run" / "config.yaml", "--run_name=again") == 0
    again = (tmp_path / "results" / "again" / "transfer.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in again] == [row.split(",")[:3] for row in rows]


def test_names_in_a_study_are_text(tmp_path):
    file = tmp_path / "study.yaml"
    networks = "networks: {101: {class_path: a}, no: {class_path: b}}\n"
    file.write_text(f"{networks}sources: [101]\nseeds: [1]\ntargets: [no]\n")
    assert read_study(file) == {
        "networks": {"101": {"class_path": "a"}, "no": {"class_path": "b"}}, "sources": ["101"], "seeds": [1],
        "targets": ["no"],
    }  # fmt: skip


def test_a_preset_under_an_alias_is_named_once(predict, tmp_path):
    """The text of an aliased part is in the file once, and its preset's name is replaced once."""
    file = tmp_path / "aliases.yaml"
    attack = "&attack {class_path: fgsm, init_args: {name: mine}}"
    file.write_text(f"model:\n  attack:\n    class_path: WorstCase\n    init_args: {{attacks: [{attack}, *attack]}}\n")
    small = ("--data.limit=1", "--data.dataset.size=32", "--model.targets={}")
    assert predict("-c", file, "--run_name=run", *small) == 0
    config = yaml.safe_load((tmp_path / "results" / "run" / "config.yaml").read_text())
    paths = [part["class_path"] for part in config["model"]["attack"]["init_args"]["attacks"]]
    assert paths == ["lightning_attack.attacks.fgsm"] * 2


def test_an_alias_to_itself_ends(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {class_path: pgd, inner: *a}\n")
    assert check_yaml(tmp_path / "a.yaml") is not None
    found = with_presets(yaml.safe_load((tmp_path / "a.yaml").read_text()))["a"]
    assert found["class_path"] == "lightning_attack.attacks.pgd"
    assert found["inner"] is found


def test_names_of_classes_are_text(predict, tmp_path, capsys):
    """In files, in studies and on the command line: `yes`, `no`, `1` and `null` are names."""
    part = "{class_path: ImageFolder, init_args: {root: nowhere, classes: &names [yes, 1, null, a]}}"
    (tmp_path / "run.yaml").write_text(
        f"data:\n  dataset: {part}\n  val: {part.replace('&names [yes, 1, null, a]', '*names')}\n"
    )
    assert read_study(tmp_path / "run.yaml")["data"]["dataset"]["init_args"]["classes"] == ["yes", "1", "null", "a"]
    for words in (
        ["-c", tmp_path / "run.yaml"],
        ["--data.dataset=ImageFolder", "--data.dataset.root=nowhere", "--data.dataset.classes=[yes, 1, null, a]"],
    ):
        assert predict(*words) == 2
        assert capsys.readouterr().err == "error: no folder 'nowhere'\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"# all of it is a comment\n", "has no settings"), (b"- a\n", "is no file of settings"),
     (b"hello", "is no file of"), (b"data:\n", "remove the line"),
     (b"\xff\xd8\xff\xe0", "is not a text file in UTF-8")],
)  # fmt: skip
def test_files_without_settings(predict, tmp_path, capsys, content, says):
    for name in ("run.yaml", "run.txt"):
        (tmp_path / name).write_bytes(content)
        assert predict("-c", tmp_path / name) == 2
        assert re.search(rf"'{tmp_path / name}'\s{says}", capsys.readouterr().err)
        assert predict(f"-c{tmp_path / name}") == 2
        assert re.search(rf"'{tmp_path / name}'\s{says}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--model.source=FILE"],
            "model.source: 'FILE' is a file of weights, not a network\nwrite --model.source=SMPModel",
        ),
        (["--model.source", "FILE"], "model.source: 'FILE' is a file of weights"),
        (
            ["--model.targets=FILE"],
            "write --model.targets='{NAME: {class_path: SMPModel, init_args: {weights: FILE}}}'",
        ),
        (["--model.targets.x=FILE"], "write --model.targets='{x: {class_path: SMPModel, init_args: {weights: FILE}}}'"),
        (
            ["--model.targets={x: FILE}"],
            "write --model.targets='{x: {class_path: SMPModel, init_args: {weights: FILE}}}'",
        ),
        (["--model.attack=FILE"], "'FILE' is a file of weights, not an attack"),
        (["-c", "FILE"], "'FILE' is a file of weights, not one of settings"),
        (["--model.network=FILE2"], "write --model.network=ExportedModel --model.network.path=FILE2"),
        (["--model.source=net.py"], "give a class or function in it by its import path: net.NAME"),
        (["--model.attack", "nets/net.py"], "net.NAME (with 'nets' on PYTHONPATH)"),
    ],
)
def test_files_of_weights_and_of_python_on_the_command_line(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.ckpt", "mine.pt2"):
        (tmp_path / name).write_bytes(b"\x80\x02}")
    names = {"FILE2": "mine.pt2", "FILE": "mine.ckpt"}
    with pytest.raises(UsageError) as error:
        with_paths([names.get(word, word.replace("FILE2", "mine.pt2").replace("FILE", "mine.ckpt")) for word in words])
    assert says in str(error.value).replace("mine.pt2", "FILE2").replace("mine.ckpt", "FILE")
