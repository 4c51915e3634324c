"""What was meant: rules for messages of the parser where the form of a word is wrong and the right one is clear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_attack.cli.mistake import Mistake, beside, either

_STUDY = {"networks", "attacks", "sources", "targets", "budgets", "seeds"}
NETWORK_KEYS = {"source", "network", "members", "targets"}
WEIGHT_FILES = {
    ".safetensors": ("TrainedModel", "file"),
    ".pt2": ("ExportedModel", "path"),
    ".ckpt": ("SMPModel", "weights"),
    ".pth": ("SMPModel", "weights"),
    ".pt": ("SMPModel", "weights"),
    ".bin": ("SMPModel", "weights"),
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
    match = match or re.search(r"(?:dot import path string: |import path format: )([^\s']+)", mistake.text)
    match = match or re.search(r"Problem with given class_path '([^']+)'", mistake.text)
    if not match or key not in NETWORK_KEYS:
        return None
    file, name = match[1], re.search(r"NestedArg\(key='([\w.-]+)'", mistake.text)  # such as model.targets.NAME
    known = file.startswith("embedded:") or Path(file).suffix in WEIGHT_FILES
    return weights_answer(f"{mistake.key}.{name[1]}" if name else mistake.key, file) if known else None


def weights_answer(key: str, file: str, network: bool = True, in_file: bool = False) -> str:
    """What to write where a file of weights was given as if it were a network, an attack or settings.

    Args:
        key: where it was given, such as `model.source`.
        file: the file.
        network: whether a network stands there.
        in_file: whether it was given in a file, not on the command line.

    Example:
        >>> print(weights_answer("model.source", "a.pt2"))
        model.source: 'a.pt2' is a file of weights, not a network
        write --model.source=ExportedModel --model.source.path=a.pt2
        >>> print(weights_answer("model.targets.a", "a.safetensors", in_file=True))
        model.targets.a: 'a.safetensors' is a file of weights, not a network
        write a: {class_path: TrainedModel, init_args: {file: a.safetensors}}
    """
    suffix = ".safetensors" if file.startswith("embedded:") else Path(file).suffix
    kind, option = WEIGHT_FILES.get(suffix, ("SMPModel", "weights"))
    other = kind == "SMPModel"
    also = " and its arch, encoder_name and num_classes" if other else ""
    more = (
        "\nother networks: TorchVisionModel, SemSegModel, or SegmentationModel with network and weights"
        if other
        else ""
    )
    if not network:
        what = f"'{file}' is a file of weights, not {'an attack' if 'attack' in key else 'one of settings'}"
        return f"{what}\nto attack it: --model.source={kind} --model.source.{option}={file}{also}{more}"
    what = f"{key}: '{file}' is a file of weights, not a network"
    before, _, last = key.rpartition(".")
    part = f"{{class_path: {kind}, init_args: {{{option}: {file}}}}}"
    place = before if before.endswith(("targets", "members")) else key
    if in_file:
        return f"{what}\nwrite {f'- {part}' if last == 'members' else f'{last}: {part}'}{also}{more}"
    if place.endswith(("targets", "members")):
        name = last if place == before else "NAME"
        part = f"{{{name}: {part}}}" if place.endswith("targets") else f"[{part}]"
        return f"{what}\nwrite --{place}='{part}'{also}{more}"
    return f"{what}\nwrite --{key}={kind} --{key}.{option}={file}{also}{more}"


def networks_by_name(mistake: Mistake) -> str | None:
    """A name where a mapping from names to networks is expected, as at `model.targets`."""
    last = mistake.key.rpartition(".")[2]
    match = re.search(r"Expected a dict.*?(?:Got|Given) value: ([\w-]+)$", mistake.text)
    if not match or last not in ("targets", "networks"):
        return None
    part = f"{{{match[1]}: {{class_path: TrainedModel, init_args: {{file: FILE}}}}}}"
    option = f"--{mistake.key}='{part}'" if last == "targets" else f"{last}: {part}"
    return (
        f"{mistake.key} takes networks by names of your own; given: {match[1]}\n"
        f"write {option} (or another class: SMPModel, ExportedModel, ...)"
    )


_SAID = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
         "dict": "a mapping (name: value)"}  # fmt: skip


def one_kind_of_value(mistake: Mistake) -> str | None:
    """A value of the wrong kind, where one kind is allowed."""
    match = re.search(r"^(?:.*\": )?Expected an? (.+?)\. Got value: (.{1,60})$", mistake.text)
    if not match:
        return None
    names = re.fullmatch(r"typing\.Literal\[(.+)\]", match[1])
    said = either([name.strip("'") for name in names[1].split(", ")]) if names else _SAID.get(match[1], match[1])
    place = f"{mistake.key}: ".removeprefix(": ")
    return f"{place}expected {said}; given: {match[2]}{in_brackets([match[1]], match[2], mistake.key)}"


def no_such_file(mistake: Mistake) -> str | None:
    """A file of settings that is not there, while one of a similar name is."""
    match = re.search(r"File does not exist: '([^']+)'", mistake.text)
    close = beside(Path(match[1])) if match else ""
    return f"File does not exist: '{match[1]}'{close}" if match and close else None


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
    if key.rpartition(".")[2] == "size" and given.isdecimal() and "int" not in kinds:
        return f"\nwrite height and width in brackets: [{given},{given}]"
    given = re.sub(r"(?<=\d)\s*[x*]\s*(?=\d)", ",", given)
    if re.fullmatch(r"[\w.+/-]+(\s*,\s*[\w.+/-]+)+", given):
        return f"\nwrite several values in brackets: [{given}]"
    return f"\nwrite it in brackets: [{given}]" if "int" not in kinds and re.fullmatch(r"[\w.+/-]+", given) else ""
