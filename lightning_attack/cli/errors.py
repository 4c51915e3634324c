"""Mistakes in two lines: what is wrong, and what is allowed.

The parser's own messages are long and speak of Python types. `explain` knows the common ones by their wording, which
may change with any release of jsonargparse; a message that it does not know is passed on in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import isfunction
from pathlib import Path

from lightning_attack.cli import meant
from lightning_attack.cli.mistake import Mistake, Part, either, known
from lightning_attack.cli.program import program
from lightning_attack.common.configs import CONFIGS, find_attack
from lightning_attack.common.errors import UserError


class UsageError(UserError):
    """Something on the command line or in a configuration cannot work."""


def explain(message: str, options: Iterable[str], parts: Mapping[str, Sequence[Part]]) -> str:
    r"""What is wrong in one line and, where that helps, what is allowed in a second one.

    Args:
        message: the parser's own, often of many lines.
        options: all option names of the command, such as `model.attack`, or of the class that the message is about.
        parts: for the last word of a key, such as `attack`, the classes and names that may stand there.

    Example:
        >>> print(explain("unrecognized arguments: --data.limt=3", ["data.limit", "data.size"], {}))
        there is no option 'data.limt'
        did you mean data.limit? known: data.limit, data.size
        >>> print(explain("something\n  new", [], {}))
        something new
    """
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
    text = re.sub(r"Expected a collections\.abc\.(Sequence|Mapping)", _python_kind, text)
    key = next(iter(re.findall(r'Parser key "([\w.]+)"', text)), "")
    mistake = Mistake(message, text, key, sorted(options), parts)
    answers = (rule(mistake) for rule in _RULES)
    passed_on = f"{key}: {text.partition(': ')[2]}" if key else text
    return next((answer for answer in answers if answer), passed_on)


def _python_kind(match: re.Match[str]) -> str:
    return f"Expected a {'list' if match[1] == 'Sequence' else 'dict'}"


def _explained(mistake: Mistake) -> str | None:
    """Explained already, by the parser of a class inside this one."""
    match = re.search(r"there is no [^\n]+\n *(?:did you mean|known:)[^\n]+", mistake.message)
    return re.sub(r"\n *", "\n", match[0]) if match else None


def _several_classes(mistake: Mistake) -> str | None:
    match = re.search(r"Multiple subclasses with name (\w+)\b.*?: ([\w., ]+?)\.?$", mistake.text)
    return f"several classes are called '{match[1]}'; give one of them in full\nknown: {match[2]}" if match else None


def _class_help(mistake: Mistake) -> str | None:
    match = re.search(r"--([\w.]+)\.help: .*?([\w.]+)\"?(?: is not a .+)?$", mistake.text)
    if not match:
        return None
    last = match[1].rpartition(".")[2]
    names = [part.__name__ for part in mistake.parts.get(last, ()) if isinstance(part, type)]
    what = f"--{match[1]}.help: '{match[2]}' is no class with options of its own"
    presets = "; those of presets: python -m pydoc lightning_attack.attacks.presets"
    return known(what + presets * (last == "attack"), match[2], names)


def _unknown_option(mistake: Mistake) -> str | None:
    match = re.search(r"unrecognized arguments: --([\w.-]+)|does not accept option '([\w.]+)'", mistake.text)
    if not match:
        return None
    wrong = match[1] or match[2]
    if wrong.startswith(("class_path", "init_args")):
        return f"this file describes one part ({wrong}), not a run\ngive it to its option, such as --model.attack=FILE"
    what = f"there is no option '{wrong}'"
    if (elsewhere := meant.ELSEWHERE.get(wrong)) in mistake.options:
        return f"{what}\ndid you mean --{elsewhere}?"
    if nearest := _first_unknown(wrong, mistake.options):
        return nearest
    before, _, last = wrong.replace("-", "_").rpartition(".")
    inner = [option for option in mistake.options if option.rpartition(".")[2] == last]
    if inner:  # the right name at the wrong place
        outermost = min(option.count(".") for option in inner)
        places = [f"--{option}" for option in inner if option.count(".") == outermost]
        value = re.search(rf"--{re.escape(wrong)}=(\S+)", mistake.message)
        example = f" Write {places[0]}={value[1]}" if value and len(places) == 1 else ""
        return f"{what}\ndid you mean {either(places[:3])}?{example}"
    beside = [option for option in mistake.options if option.rpartition(".")[0] == before]
    return known(what, wrong, beside, "--print_config shows all")


def _first_unknown(wrong: str, options: Sequence[str]) -> str | None:
    """The first key of a longer one that is not known, where a similar one is: `model.target` of `model.target.a`."""
    keys = wrong.split(".")
    for count in range(1, len(keys)):
        whole = keys[:count]
        places = {
            ".".join(option.split(".")[:count]) for option in options if option.split(".")[: count - 1] == whole[:-1]
        }
        if ".".join(whole) not in places:
            close = get_close_matches(".".join(whole), places, n=1, cutoff=0.8)
            return f"there is no option '{'.'.join(whole)}'\ndid you mean {close[0]}?" if close else None
    return None


def _stray_word(mistake: Mistake) -> str | None:
    match = re.search(r"unrecognized arguments: ([^\s-]\S*)", mistake.text)
    if not match:
        return None
    word = match[1]
    what = f"'{word}' stands alone; after the command there are options only"
    if "model.attack" in mistake.options and ("attacks" in Path(word).parts or find_attack(word)):
        path = find_attack(word)
        if path is None or path.parent.name == "attacks":
            return f"{what}\nfor an attack: --model.attack={word}"
    return f"{what}\nfor a configuration file: -c {word}" if Path(word).suffix in (".yaml", ".yml") else what


def _unknown_setting(mistake: Mistake) -> str | None:
    match = re.search(r"Option '([\w.]+)' is not accepted", mistake.text)
    names = [name for name in mistake.options if "." not in name]
    return known(f"there is no option '{match[1]}'", match[1], names) if match else None


def _own_code(path: str) -> str | None:
    """What is wrong with the import path of a class or function; None if nothing is, or it is no such path."""
    module, _, name = path.rpartition(".")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
        return None
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return f"there is no module '{error.name}' on Python's path, to which '{Path.cwd()}' belongs"
        return f"module '{module}' cannot be imported: {error}"
    except AttributeError:
        return f"module '{module}' has no '{name}'"
    except Exception as error:  # whatever the user's module raises
        return f"module '{module}' cannot be imported: {type(error).__name__}: {error}"
    if isfunction(found):
        return f"the annotation of '{path}' is that of no network; write `def {name}(...) -> torch.nn.Module:`"
    if not isinstance(found, type) and callable(found):
        kind = type(found).__name__
        return (
            f"'{path}' is an object ({kind}), not a class or function\n"
            f"write a function around it, in '{module}': def build(): return {name}()"
        )
    return None


def _wrong_class(mistake: Mistake) -> str | None:
    match = re.search(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", mistake.text)
    if not match:
        return None
    place = f"{mistake.key}: ".removeprefix(": ")
    return place + (_own_code(match[1]) or f"'{match[1]}' is no {match[2]}")


def _unknown_part(mistake: Mistake) -> str | None:
    match = re.search(r"(?:dot import path string: |import path format: |given class_path ')([^\s']+)", mistake.text)
    kind = next((word for word in reversed(mistake.key.split(".")) if word in mistake.parts), None)
    if not match or not kind:
        return None
    if problem := _own_code(match[1]):
        return f"{mistake.key}: there is no '{match[1]}': {problem}"
    names = [part if isinstance(part, str) else part.__name__ for part in mistake.parts[kind]]
    attack = kind in ("attack", "attacks")
    what = f"{mistake.key}: there is no '{match[1]}'"
    if match[1].endswith((".yaml", ".yml")):
        what = f"{mistake.key}: there is no file '{match[1]}' in '{Path.cwd()}'"
        names = [name for name in names if attack and name.islower()]
    everything = f"all: the files of '{CONFIGS / 'attacks'}'; `{program()} attacks` describes them"
    return known(what, match[1], names, everything if attack else "")


def _wrong_value(mistake: Mistake) -> str | None:
    match = re.search(r"Errors: - (.+?) - Expected a NoneType", mistake.text)
    if not match:
        return None
    value = re.search(r"Given value: (.+)$", mistake.text)
    given = value[1] if value and len(value[1]) < 60 and not value[1].startswith("NestedArg(") else ""
    inner = re.search(r"Errors:\s+- (?!Expected)(.+?)\n\s+- Expected a <class 'NoneType'>", mistake.message, re.DOTALL)
    if inner and not given:  # of a part of it, explained already
        joint = "." if re.match(r"[\w.]+: ", inner[1]) else ": "  # of a setting inside it, or of the whole
        return re.sub(r"\n +", "\n", f"{mistake.key}{joint}{inner[1]}".removeprefix(joint))
    kinds = re.findall(r"Expected an? (\S.*?)(?= - |$)", match[1])
    said = match[1]
    if kinds and len(kinds) == match[1].count(" - ") + 1:
        said = "expected " + " or ".join(re.sub(r"^typing\.Literal\[(.+)\]$", r"\1", kind) for kind in kinds)
    said = f"{mistake.key}: {said}".removeprefix(": ") + (f"; given: {given}" if given else "")
    return said + meant.in_brackets(kinds, given, mistake.key)


def _union(mistake: Mistake) -> str | None:
    """A value that none of several types takes."""
    match = re.search(
        r"Union subtypes Subtypes: \[(.+)\] Errors: (.+?) Given value type: .+? Given value: (.+)$", mistake.text
    )
    if not match or any(not error.startswith("Expected") for error in re.split(r"(?:^| )- ", match[2])[1:]):
        return None
    given = match[3] if len(match[3]) <= 60 else f"{match[3][:60]}..."
    kinds = match[1].replace("typing.", "").replace("NoneType", "null")
    return f"{mistake.key}: expected one of {kinds}; given: {given}".removeprefix(": ")


_RULES: Sequence[Callable[[Mistake], str | None]] = (
    _explained,
    meant.required,
    meant.without_value,
    meant.two_dashes,
    meant.file_of_another_command,
    meant.class_for_a_file,
    meant.weights,
    meant.networks_by_name,
    meant.no_such_file,
    _several_classes,
    _class_help,
    _unknown_option,
    _stray_word,
    _unknown_setting,
    _wrong_class,
    _unknown_part,
    _wrong_value,
    meant.kind_of_value,
    meant.one_kind_of_value,
    _union,
)
