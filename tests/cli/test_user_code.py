"""Code of the user: found in the working directory, and named with its place where it fails."""

import sys

import pytest
import yaml

from lightning_attack.cli import main
from lightning_attack.cli.parser import with_paths

NETWORKS = """
import functools, torch


def without_annotation():
    return torch.nn.Conv2d(3, 8, 1)


def too_many() -> torch.nn.Module:
    first, second = torch.zeros(3)
    return torch.nn.Conv2d(3, 8, 1)


class Broken(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        raise KeyError("state")


def fine() -> torch.nn.Module:
    return torch.nn.Conv2d(3, 8, 1)


def says_int() -> int:
    return 3


def without_return():
    torch.nn.Conv2d(3, 8, 1)


def of_width(width, kernel=1):
    return torch.nn.Conv2d(3, width, kernel)


partly = functools.partial(of_width, width=8)


class Wrong(torch.nn.Module):
    def __init__(self, divisor=0):
        super().__init__()
        self.share = 1 / divisor


class WrongForward(torch.nn.Module):
    def forward(self, images):
        return undefined


class Builder:
    @staticmethod
    def build(classes):
        return torch.nn.Conv2d(3, classes, 1)
"""


SMALL = ("--data.limit=1", "--data.dataset.size=32", "--model.targets={}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with files of a user, in which commands are typed."""
    (tmp_path / "users_networks.py").write_text(NETWORKS)
    (tmp_path / "users_imports.py").write_text("import not_there\n")
    (tmp_path / "users_syntax.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "users_networks.says_int",
            "the annotation of 'users_networks.says_int' is that of no network; write `def says_int(...) -> torch",
        ),
        ("users_networks.without_return", "a network is a torch.nn.Module; given: NoneType"),
        ("users_networks.partly", "'users_networks.partly' is an object (partial), not a class or function"),
        ("users_networks.of_width", "model.source: users_networks.of_width needs width"),
        ("users_networks.Wrong", "users_networks.py:42 raised ZeroDivisionError: division by zero"),
        ("users_networks.WrongForward", "(NameError at "),
        ("users_networks.too_many", "users_networks.py:10 raised ValueError: too many values to unpack"),
        ("users_networks.Broken", "users_networks.py:17 raised KeyError: 'state'"),
        ("users_networks.buidl", "module 'users_networks' has no 'buidl'"),
        ("users_imports.build", "module 'users_imports' cannot be imported: No module named 'not_there'"),
        ("users_syntax.build", "users_syntax.py:1 is not valid Python"),
        ("users_nowhere.build", "there is no module 'users_nowhere' on Python's path, to which"),
    ],
)
def test_what_is_wrong_and_where(source, says, here, capsys):
    assert main(["predict", f"--model.source={source}", "--model.attack=fgsm", "--data.limit=1"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) <= 2
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    "source",
    [["fine"], ["without_annotation"], ["of_width", "width=8"], ["Builder.build", "classes=8"]],
    ids=lambda source: source[0],
)
def test_a_network_beside_the_user(source, here):
    name, *settings = source
    words = ["predict", f"--model.source=users_networks.{name}", "--model.attack=fgsm", *SMALL]
    words += [f"--model.source.{setting}" for setting in settings]
    assert main([*words, "--run_name=run"]) == 0
    assert (here / "results" / "run" / "transfer.csv").is_file()
    assert name in (here / "results" / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        ([], "model: {attack: {name: pgd, eps: 4/255}}\n", "model.attack.name=pgd, but the attack is transegpgd"),
        ([], "model:\n  attack: pgd\n  attack.eps: 4/255\n", "'attack' and 'attack.eps' stand side by side in"),
        (
            [],
            "model.attack: pgd\nmodel.attack.eps: 4/255\n",
            "'model.attack' and 'model.attack.eps' stand side by side in",
        ),
    ],
)
def test_another_attack_than_the_one_that_was_written(words, text, says, here, capsys):
    (here / "run.yaml").write_text(text)
    assert main(["predict", *words, *(["-c", "run.yaml"] if text else [])]) == 2
    assert says in capsys.readouterr().err


PHOTOS = """
from lightning_attack.data import SegmentationDataset


class Photos(SegmentationDataset):
    def __init__(self, root: str, size: int = 512, seed: int = 7, count: int | None = None) -> None: ...
    def __len__(self): return 0
    def __getitem__(self, index): ...


def network(file: str = "mine.pt", name: str = "mine") -> "torch.nn.Module": ...
"""
SET = {"model.source": "users_photos.network", "model.targets.fpn_mobilenetv2": "users_photos.network",
       "data.dataset": "users_photos.Photos"}  # fmt: skip
ROOT = {"data.dataset": {"root": "x"}}


@pytest.mark.parametrize("form", ["option", "class_path", "file"])
def test_a_class_in_place_of_another_gets_none_of_its_settings(form, here, capsys):
    (here / "users_photos.py").write_text("import torch\n" + PHOTOS)
    parts = {key: {"class_path": path, "init_args": ROOT.get(key, {})} for key, path in SET.items()}
    source, target, photos = parts.values()
    model = {"source": source, "targets": {"fpn_mobilenetv2": target}}
    (here / "run.yaml").write_text(yaml.safe_dump({"model": model, "data": {"dataset": photos}}))
    dot = ".class_path" if form == "class_path" else ""
    words = [f"--{key}{dot}={path}" for key, path in SET.items()] + ["--data.dataset.root=x"]
    config = printed(capsys, "predict", *(["-c", "run.yaml"] if form == "file" else words))
    assert config["data"]["dataset"]["init_args"] == {"root": "x", "size": 512, "seed": 7, "count": None}
    for network in (config["model"]["source"], config["model"]["targets"]["fpn_mobilenetv2"]):
        assert network["init_args"] == {"file": "mine.pt", "name": "mine"}
    config = printed(capsys, "universal", f"--data.train{dot}=users_photos.Photos", "--data.train.root=x")
    assert config["data"]["train"]["init_args"] == {"root": "x", "size": 512, "seed": 7, "count": None}


def printed(capsys, command, *words):
    with pytest.raises(SystemExit):
        main([command, *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("second", [["-c", "b.yaml"], ["--model.attack=lightning_attack.attacks.pgd"]])
def test_an_attack_in_place_of_another_keeps_none_of_its_settings(second, here, capsys):
    attack = {"class_path": "transegpgd", "init_args": {"eps": "4/255", "steps": 40}}
    (here / "a.yaml").write_text(yaml.safe_dump({"model": {"attack": attack}}))
    (here / "b.yaml").write_text("model: {attack: {class_path: lightning_attack.attacks.pgd}}\n")
    alone = printed(capsys, "predict", *second)["model"]["attack"]
    assert printed(capsys, "predict", "-c", "a.yaml", *second)["model"]["attack"] == alone
    same = printed(capsys, "predict", "-c", "a.yaml", "--model.attack.steps=3")["model"]["attack"]
    assert (same["init_args"]["eps"], same["init_args"]["steps"]) == ("4/255", 3)


@pytest.mark.parametrize("words", [["--model.attack.eps=1", "--model.attack", "APGD"],
                                   ["--data.dataset.size=96", "--data.dataset", "ImageFolder"]])  # fmt: skip
def test_settings_before_the_class_that_may_drop_them(words):
    with pytest.warns(UserWarning, match=f"{words[0]} may have no effect: it comes before {words[1]}"):
        with_paths(words)


@pytest.mark.parametrize("attack", [["--model.attack=fgsm"], ["--model.attack", "fgsm"]])
def test_settings_before_the_attack_that_replaces_them(predict, attack):
    """As before, what comes first has no effect; now it is said."""
    words = (*SMALL, "--model.attack.eps=4/255", *attack)
    with pytest.warns(UserWarning, match="--model.attack.eps=4/255 has no effect: it comes before --model.attack"):
        assert predict(*words) == 0


def test_a_preset_with_settings(predict, tmp_path):
    config = {"model": {"attack": {"class_path": "pgd", "init_args": {"eps": "4/255", "steps": 1, "name": "small"}}}}
    assert predict(config, *SMALL, "--run_name=run") == 0
    assert "small,deeplabv3plus" in (tmp_path / "results" / "run" / "transfer.csv").read_text()
    assert "class_path: lightning_attack.attacks.pgd" in (tmp_path / "results" / "run" / "config.yaml").read_text()
