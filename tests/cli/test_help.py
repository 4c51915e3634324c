"""`--help`: short, complete in what is ours, and every pointer in it leads somewhere."""

import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest

from lightning_attack import data
from lightning_attack.cli import main
from lightning_attack.cli.help import FIT, TRAINER
from lightning_attack.common.configs import find_attack
from lightning_attack.predict import AttackModule
from lightning_attack.training import SegmentationTask
from tests.readme.pages import COMMANDS

ROOT = Path(__file__).parents[2]


def said(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("COLUMNS", "82")
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("command", "model"), [("predict", AttackModule), ("fit", SegmentationTask)])
def test_help_is_short_and_has_all_of_our_options(capsys, monkeypatch, command, model):
    text = said(capsys, monkeypatch, command, "--help")
    assert len(text.splitlines()) < 160
    assert not re.findall(r"known subclasses|torch\.nn|Union\[", text)
    shown = set(re.findall(r"^  --([\w.]+)", text.partition("\nmore:")[0], re.MULTILINE))
    expected = {f"model.{name}" for name in inspect.signature(model).parameters}
    expected |= {f"data.{name}" for name in inspect.signature(data.SegmentationDataModule).parameters}
    if command == "predict":  # set by --on_error, and by studies
        expected -= {"model.on_error", "data.on_error", "model.clean_cache"}
    expected |= {f"trainer.{name}" for name in (TRAINER | FIT if command == "fit" else TRAINER)}
    assert {name for name in shown if name.startswith(("model.", "data.", "trainer."))} == expected
    # An option, its kind of value and what it is for, on one line or on two.
    option = r"--data.batch_size int +photos in a batch \(default: {}\)\n"
    assert re.search(option.format(8 if command == "predict" else 1), text)
    assert ("--results" in text) == (command == "predict")


def test_the_first_help_names_all_commands(capsys, monkeypatch):
    text = said(capsys, monkeypatch, "--help")
    for command in ("predict", "fit", "validate", "test", "export"):
        assert re.search(rf"^python main.py {command} |^    {command} ", text, re.MULTILINE), command
    assert "Lightning Trainer command line tool" not in text


def test_pointers_lead_somewhere(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = said(capsys, monkeypatch, "predict", "--help")
    pointers = [line.split("   ")[0].strip() for line in text.partition("more:\n")[2].splitlines()]
    assert len(pointers) == 6
    for pointer in pointers:
        words = shlex.split(pointer)
        if ".help=" in pointer:
            assert pointer.partition(".help")[0] in said(capsys, monkeypatch, "predict", pointer)
        elif words[:2] == ["python", "main.py"]:
            assert "num_sanity_val_steps: null" in said(capsys, monkeypatch, *words[2:])
        elif words[0] == "python":
            assert pointer in COMMANDS, "tests/readme/test_reference.py runs it"
        elif words[0] == "-c":
            assert words[2].startswith("--data.batch_size=")
        else:
            assert find_attack(pointer.partition("=")[2]).is_file()


def test_help_of_what_is_no_class(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert main(["predict", "--model.attack.help=transegpgd"]) == 2
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("error: --model.attack.help: 'transegpgd' is no class with options of its own")
    assert "pydoc lightning_attack.attacks.presets" in first
    assert second.startswith("known: ")
    assert "IterativeAttack" in second
