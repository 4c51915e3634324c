"""What was meant: rules for messages of the parser where the form of a word is wrong and the right one is clear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_attack.cli.mistake import Mistake, either

_STUDY = {"networks", "attacks", "sources", "targets", "budgets", "seeds"}
_NETWORK_KEYS = {"source", "network", "members", "targets"}
_FILES = {
    ".safetensors": ("TrainedModel", "file"),
    ".pt2": ("ExportedModel", "path"),
    ".ckpt": ("SMPModel", "weights"),
    ".pth": ("SMPModel", "weights"),
    ".pt": ("SMPModel", "weights"),
}
"""The class that loads a file of weights, and its option."""

ELSEWHERE = {
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "devices": "trainer.devices",
    "epochs": "trainer.max_epochs",
    "workers": "data.num_workers",
    "output": "results",
    "out": "results",
    "name": "run_name",
    "seed": "model.seed",
}
"""Options of other programs, and what they are called here."""


def required(mistake: Mistake) -> str | None:
    """Something must be given and is not."""
    match = re.search(r"(?:arguments are required|needs): ((?:[\w.-]+, )*[\w.-]+)(?= - | \(|$)", mistake.text)
    if not match:
        return None
    names = [re.sub(r"^(--|(fit|validate|test|predict)\.)", "", name) for name in match[1].split(", ")]
    if mistake.key:
        return f"{mistake.key} needs: {', '.join(f'--{mistake.key}.{name}' for name in names)}"
    known = {*mistake.options}
    if "config" not in known and "output" not in known and {*names} <= known - {"to"}:
        below = f"options below it, such as --model.source.{names[0]}=VALUE, or init_args in a file"
        return f"the class needs: {', '.join(names)} ({below})"
    return f"this command needs: {', '.join(f'--{name}' if name in known else name for name in names)}"


def without_value(mistake: Mistake) -> str | None:
    """An option stands without a value."""
    match = re.search(r"argument (--[\w.-]+).*: expected one argument", mistake.text)
    return f"{match[1]} needs a value: {match[1]}=VALUE (a switch: true or false)" if match else None


def two_dashes(mistake: Mistake) -> str | None:
    """An option with one dash, or with none."""
    match = re.search(r"unrecognized arguments: -?(([a-z_][\w.]*)=\S+)", mistake.text)
    known = {*mistake.options} | {option.rpartition(".")[2] for option in mistake.options}
    if not match or match[2] not in known:
        return None
    return f"options begin with two dashes\nwrite --{match[1]}"


def file_of_another_command(mistake: Mistake) -> str | None:
    """A configuration of `predict`, `fit` or `study` that is given to another command."""
    match = re.search(r"does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted", mistake.text)
    if not match:
        return None
    wrong = match[1] or match[2]
    words = wrong.split(".")
    trains = "model.lr" in mistake.options
    if words[0] in _STUDY:
        return f"'{words[0]}' is said in the file of a study\ngive the file to study: study -c FILE"
    if words[0] != "model" or len(words) < 2:
        return None
    if trains and words[1] in ("source", "targets", "attack"):
        return f"'model.{words[1]}' is said in a file for predict; fit, validate and test have model.network\n{_own(1)}"
    if words[1] in ("network", "lr") and not trains and "model.source" in mistake.options:
        return f"'model.{words[1]}' is said in a file for fit; predict has model.source and model.targets\n{_own(0)}"
    return None


def _own(trains: int) -> str:
    return ("give the file to fit: fit -c FILE", "give the file to predict: predict -c FILE")[trains]


def class_for_a_file(mistake: Mistake) -> str | None:
    """`--data=CLASS`, where the class belongs one level lower."""
    match = re.search(r"Unable to load config ['\"]([\w.]+)['\"]", mistake.text)
    inner = {"data": "data.dataset", "model": "model.source", "trainer": "trainer.accelerator"}.get(mistake.key)
    if not match or not inner:
        return None
    inner = "model.network" if mistake.key == "model" and "model.lr" in mistake.options else inner
    return (
        f"--{mistake.key} takes a file of settings, and there is none '{match[1]}'\nfor a class: --{inner}={match[1]}"
    )


def weights(mistake: Mistake) -> str | None:
    """A file of weights where a network is expected."""
    key = mistake.key.rpartition(".")[2]
    match = re.search(r"Expected a path but (\S+) either not accessible", mistake.text)
    match = match or re.search(r"Unable to load config ['\"]([^'\"]+)['\"]", mistake.text)
    if not match or key not in _NETWORK_KEYS:
        return None
    file = match[1]
    kind, option = _FILES.get(".safetensors" if file.startswith("embedded:") else Path(file).suffix, ("", ""))
    if not kind:
        return None
    what = f"{mistake.key}: '{file}' is a file of weights, not a network"
    if key in ("targets", "members"):
        part = f"{{class_path: {kind}, init_args: {{{option}: {file}}}}}"
        part = f"{{NAME: {part}}}" if key == "targets" else f"[{part}]"
        return f"{what}\nwrite --{mistake.key}='{part}'"
    also = " and its arch, encoder_name and num_classes" if kind == "SMPModel" else ""
    return f"{what}\nwrite --{mistake.key}={kind} --{mistake.key}.{option}={file}{also}"


def kind_of_value(mistake: Mistake) -> str | None:
    """A value of the wrong kind, where none of several kinds fits."""
    match = re.search(r"Errors: ((?:- Expected an? \S+ )+)Given value type: \S+ Given value: (.{1,60})$", mistake.text)
    if not match:
        return None
    kinds = re.findall(r"Expected an? (\S+)", match[1])
    place = f"{mistake.key}: ".removeprefix(": ")
    return f"{place}expected {either(kinds)}; given: {match[2]}{in_brackets(kinds, match[2], mistake.key)}"


def in_brackets(kinds: Sequence[str], given: str, key: str) -> str:
    """A second line with the list that was meant by a value without brackets; empty if none was."""
    if not given or not {"list", "tuple"} & {*kinds}:
        return ""
    if key.rpartition(".")[2] == "classes" and given.isdecimal():
        return f"\nwrite the names of the {given} classes, not their number: [background,person,...]"
    given = re.sub(r"(?<=\d)\s*[x*]\s*(?=\d)", ",", given)
    if re.fullmatch(r"[\w.+/-]+(\s*,\s*[\w.+/-]+)+", given):
        return f"\nwrite several values in brackets: [{given}]"
    return f"\nwrite it in brackets: [{given}]" if "int" not in kinds and re.fullmatch(r"[\w.+/-]+", given) else ""
