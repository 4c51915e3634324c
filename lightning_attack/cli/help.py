"""`--help` that fits on a few screens: one line for each option, from its docstring, and the Trainer's that matter."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ActionConfigFile, DefaultHelpFormatter

from lightning_attack.cli.commands import COMMANDS
from lightning_attack.cli.internals import is_parser_option, type_of
from lightning_attack.cli.program import program

TRAINER = {
    "accelerator": "cpu, gpu, mps, tpu, or auto",
    "devices": "how many devices, which ones ([0, 2]), or auto",
    "num_nodes": "how many machines",
    "strategy": "ddp for several devices or machines",
    "precision": "32-true or bf16-mixed",
    "callbacks": "further callbacks: --trainer.callbacks+=NAME appends one",
    "logger": "loggers beside the run's own, such as CSVLogger",
    "enable_progress_bar": "whether progress is shown",
    "deterministic": "true: refuse operations that differ from run to run; warn: name them",
    "profiler": "simple or advanced: where the time goes",
}
FIT = {
    "max_epochs": "how often all photos are seen",
    "max_time": "when to end at the latest, as DD:HH:MM:SS",
    "accumulate_grad_batches": "batches that make one step",
    "gradient_clip_val": "longest gradient",
    "fast_dev_run": "true: one batch, to see whether all parts fit",
}
_OTHERS = {
    "print_config": "print all settings, hidden ones too, and exit; =skip_default: those that differ",
    "seed_everything": "seed of all random numbers outside of attacks, which have model.seed",
}
_WIDEST, _LONG = 60, 120


def descriptions(commands: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For each command what stands above and below its options."""
    return {name: {"description": COMMANDS[name].does, "epilog": _epilog(name)} for name in commands}


def _epilog(command: str) -> str:
    has_source = command in ("predict", "universal")
    network, run = ("model.source", "mine") if has_source else ("model.network", "my_network")
    lines = [
        (f"{program()} {command} --print_config", "all settings, with the rest of the Trainer's"),
        (f"--{network}.help=SMPModel", "the options of one class; so for each option that takes a class"),
        (f"-c {run}.yaml --data.batch_size=4", "files and options compose; later ones win"),
    ]
    if command == "predict":
        lines[2:2] = [
            ("--model.attack=pgd", f"an attack by name; all: {program()} attacks"),
            ("--model.attack.help=IterativeAttack", "the options of an attack that is a class"),
            ("python -m pydoc lightning_attack.attacks.presets", "the settings of all others"),
        ]
    return "more:\n" + "\n".join(f"  {words:<50} {meaning}" for words, meaning in lines)


class HelpFormatter(DefaultHelpFormatter):
    """One line for each option; parts' own options and most of the Trainer's are left out."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **({"max_help_position": 36} | options))

    def add_usage(self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any) -> None:
        """Not all options once more, where there are many."""
        if usage is None and len(list(actions)) > 20:
            usage = f"{program()} {self._prog.split()[-1]} [-c FILE ...] [--OPTION=VALUE ...]"
        super().add_usage(usage, actions, *args, **kwargs)

    def add_argument(self, action: Action) -> None:
        if not self._hidden(action):
            super().add_argument(action)

    def start_section(self, heading: str | None) -> None:
        super().start_section("Lightning's Trainer" if heading and "every aspect of training" in heading else heading)

    def add_text(self, text: str | None) -> None:
        if text and (match := re.search(r"overridden by the contents of: (.+)$", text)):
            files = ", ".join(Path(file.strip(" '")).name for file in match[1].strip("[]").split(","))
            text = f"{files}; what it sets are the defaults below"
        super().add_text(text)

    def _hidden(self, action: Action) -> bool:
        part, _, name = action.dest.partition(".")
        if part == "trainer":
            return name not in (TRAINER | FIT if self._prog.endswith(("fit", "universal")) else TRAINER)
        return is_parser_option(action)

    def _get_help_string(self, action: Action) -> str:
        # The base class has put in the default that a file brings, for as long as it asks for this text.
        part, _, name = action.dest.partition(".")
        words = (TRAINER | FIT).get(name) if part == "trainer" else _OTHERS.get(part)
        text = words or first_sentence(action.help or "")
        shown = default_words(action.default)
        return f"{text} (default: {shown})".strip() if shown else text

    def _format_action_invocation(self, action: Action) -> str:
        if len(action.option_strings) < 2 or not action.option_strings[-1].endswith("+"):
            return super()._format_action_invocation(action)
        strings, action.option_strings = action.option_strings, action.option_strings[:1]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = strings

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        if isinstance(action, ActionConfigFile):
            return "FILE"
        return type_words(type_of(action)) or super()._get_default_metavar_for_optional(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


def first_sentence(text: str) -> str:
    r"""What a docstring says first, in one line and without its full stop; of a long sentence its first part.

    Example:
        >>> first_sentence("Photos in a batch. With `size: null` photos\n differ in size.")
        'photos in a batch'
    """
    sentence = re.split(r"\.(?=\s|$)", " ".join(text.split()))[0]
    sentence = sentence if len(sentence) < _LONG else sentence.split("; ")[0]
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence


def default_words(value: Any) -> str:
    """A default value in few words; empty where there is none.

    Example:
        >>> default_words({"class_path": "lightning_attack.models.TrainedModel", "init_args": {"file": "a.pt"}})
        'TrainedModel'
        >>> default_words({"first": {"class_path": "A"}, "second": {"class_path": "B"}}), default_words(None)
        ('first, second', '')
    """
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if value is None or value == "==SUPPRESS==" or value == []:
        return ""
    if isinstance(value, Mapping):
        return value["class_path"].rpartition(".")[2] if "class_path" in value else ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return ", ".join(map(default_words, value))
    return str(value) if len(str(value)) < _WIDEST else ""


def type_words(hint: Any) -> str:
    """The type of a value in few words; empty if the parser lists its values itself.

    Example:
        >>> type_words(int | tuple[int, int] | None), type_words(Literal["a", "b"] | None), type_words(bool)
        ('int|tuple', '{a,b}', '')
    """
    union = getattr(get_origin(hint), "__name__", "") in ("Union", "UnionType")
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if union else [hint]
    if len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return f"{{{','.join(map(str, get_args(kinds[0])))}}}"
    names = [getattr(get_origin(kind) or kind, "__name__", "Literal") for kind in kinds]
    if len(names) > 2 or "Literal" in names:
        return "VALUE"
    return "" if names == ["bool"] else "|".join(names)
