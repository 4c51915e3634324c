"""`Study`: the file of a study; `Cell`: one of the runs that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from os.path import isdir
from pathlib import Path
from typing import Any, Literal

import yaml

from lightning_attack.common.configs import attack_names, find_attack
from lightning_attack.common.errors import UserError

Part = str | dict[str, Any]
"""A file, or what would stand in it: `class_path` and `init_args`."""


class StudyError(UserError, ValueError):
    """A study that cannot be run as it is written; the message says what is wrong and what may stand there."""


@dataclass
class Study:
    """The file of a study: every attack on every source, with every budget and seed.

    Attributes:
        networks: all networks by name, each as `class_path` and `init_args`.
        attacks: attacks by name such as `pgd`, or files such as `configs/attacks/pgd.yaml`; or a mapping from names of
            your own to such a name, a file or a part. A folder in their place has images that another tool attacked,
            in a folder for each source; they are scored. Those of a study with budgets must lie inside the L-inf radius
            `eps` of each; without budgets they are not checked.
        sources: names of the networks to attack.
        targets: names of the networks to score; nothing = all.
        budgets: radii such as `4/255`, or settings of the attack such as `{eps: 4/255, step_size: 1/255}`; nothing =
            those of the attacks.
        seeds: of the runs.
        data: as at `data` of predict.
        model: what else is said at `model` of predict, such as `engine`.
        trainer: as at `trainer` of predict.
        on_error: as `--on_error` of predict: `raise` or `skip`.
        strict: as `--strict` of predict.
        curve: `steps`, as `--curve` of predict; nothing = no curve.
        images: as `--images` of predict: `png`, or `shards` or `none` for studies too large to keep a million files.
        defended: networks that a benchmark counts as defended beside those of `Defended` and `Smoothed`, such as robust
            ones.
    """

    networks: dict[str, dict[str, Any]]
    attacks: list[str] | dict[str, Part]
    sources: list[str]
    targets: list[str] = field(default_factory=list)
    budgets: list[Any] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    on_error: Literal["raise", "skip"] = "raise"
    strict: bool = False
    curve: Literal["steps"] | None = None
    images: Literal["png", "shards", "none"] = "png"
    defended: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: of its folder.
        attack: file or part.
        source: name of the attacked network.
        overrides: settings of the attack that the budget changes.
        seed: of the run.
        data: what is said at `data` of predict beside what the study says there.
    """

    name: str
    attack: Part
    source: str
    overrides: tuple[tuple[str, Any], ...]
    seed: int
    data: Mapping[str, Any] = field(default_factory=dict)

    def attack_words(self) -> list[str]:
        """The words of the command line that choose the attack and its budget."""
        attack = self.attack if isinstance(self.attack, str) else inline(self.attack)
        overrides = ((key, "null" if value is None else value) for key, value in self.overrides)
        return [f"--attack={attack}", *(f"--attack.{key}={value}" for key, value in overrides)]

    def words(self, study: Study) -> list[str]:
        """The words of the run's command line, but for its folder."""
        names = dict.fromkeys([self.source, *(study.targets or study.networks)])
        config: dict[str, Any] = {
            "model": study.model
            | {"source": study.networks[self.source], "targets": {name: study.networks[name] for name in names}},
            "data": {**study.data, **self.data},
            "trainer": study.trainer,
        }
        attack = [word.replace("--attack", "--model.attack", 1) for word in self.attack_words()]
        said = {key: value for key, value in config.items() if value}
        more = [f"--on_error={study.on_error}", *([f"--curve={study.curve}"] if study.curve else [])]
        more += ["--strict=true"] if study.strict else []
        more += [f"--images={study.images}"] if study.images != "png" else []
        return ["predict", f"--config={inline(said)}", *attack, f"--model.seed={self.seed}", *more]


def cells(study: Study, folder: Path = Path()) -> list[Cell]:
    """All runs of a study, attack by attack.

    Args:
        study: the study.
        folder: of its file. Files of attacks are looked for in the working directory, then there, then in the package.

    Raises:
        StudyError: a name is no network, there is no such file, two cells would have one name, or nothing to do.

    Example:
        >>> net = {"class_path": "TrainedModel"}
        >>> attacks = {"a": {"class_path": "NoAttack"}}
        >>> two = Study({"x": net, "y": net}, attacks, ["x", "y"], budgets=["4/255", {"eps": 0.03}])
        >>> [cell.name for cell in cells(two)]
        ['a_x_eps4-255', 'a_x_eps0.03', 'a_y_eps4-255', 'a_y_eps0.03']
    """
    for key, names in (("sources", study.sources), ("targets", study.targets), ("defended", study.defended)):
        unknown = [name for name in names if name not in study.networks]
        if unknown:
            raise StudyError(f"{key}: there is no network '{unknown[0]}'\nknown: {', '.join(map(str, study.networks))}")
    if wrong := sorted({"source", "targets", "attack", "seed"} & {*study.model}):
        raise StudyError(f"model.{wrong[0]}: a study says it in sources, targets, attacks, budgets or seeds")
    if not (study.attacks and study.sources and study.seeds):
        raise StudyError("attacks, sources and seeds must not be empty: a study is all of their combinations")
    attacks = study.attacks if isinstance(study.attacks, dict) else {Path(file).stem: file for file in study.attacks}
    if unnamed := [part for name, part in attacks.items() if not str(name).strip() or part in ("", None)]:
        raise StudyError(f"attacks: '{unnamed[0] or ''}' has no name; give one, such as mine: pgd")
    if len(attacks) < len(study.attacks):
        raise StudyError("attacks: two files have one name; give them names of your own (name: file)")
    found = []
    for (name, attack), source in product(attacks.items(), study.sources):
        for budget, seed in product(study.budgets or [{}], study.seeds):
            overrides = budget if isinstance(budget, Mapping) else {"eps": budget}
            parts = [name, source, *(f"{key}{_plain(value)}" for key, value in overrides.items())]
            parts += [f"seed{seed}"] if len(study.seeds) > 1 else []
            part, data = _located(attack, folder), {}
            if isinstance(part, str) and isdir(part):
                data = _images_of(Path(part), source, study.sources, _radius(overrides, part))
                part, overrides = {"class_path": "Given", "init_args": {"name": name}}, {}
            found.append(Cell("_".join(parts), part, source, tuple(overrides.items()), seed, data))
    names = [cell.name for cell in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StudyError(f"two cells are named '{min(twice)}'; an attack, source, budget or seed is given twice")
    if unfit := [name for name in names if not re.fullmatch(r"[\w.+-]+", name)]:
        raise StudyError(f"'{unfit[0]}' cannot be the name of a folder; use letters, digits, '_', '-', '+' and '.'")
    return found


def share(found: list[Cell], part: str | None) -> list[Cell]:
    """The k-th of n shares of the cells, for `part` = "k/n"; all for None.

    Raises:
        StudyError: it is no such fraction.

    Example:
        >>> share(["a", "b", "c", "d", "e"], "2/3")
        ['b', 'e']
    """
    if part is None:
        return found
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise StudyError(f"--cell={part}: give k/n with k from 1 to n, such as 1/4 to 4/4 for an array of four jobs")
    return found[int(match[1]) - 1 :: int(match[2])]


def ensemble_of(network: Mapping[str, Any]) -> tuple[int, Any]:
    """How many members a network of a study has, and by what it averages them, see `models.Ensemble`.

    Example:
        >>> ensemble_of({"class_path": "Ensemble", "init_args": {"members": [{}, {}], "by": "loss"}})
        (2, 'loss')
        >>> ensemble_of({"class_path": "TrainedModel"})
        (1, 'logits')
    """
    settings = network.get("init_args")
    settings = settings if isinstance(settings, Mapping) else {}
    members = settings.get("members")
    return len(members) if isinstance(members, list) else 1, settings.get("by", "logits")


def inline(part: Mapping[str, Any]) -> str:
    """A part of a configuration in one line."""
    return yaml.dump(dict(part), Dumper=_Plain, default_flow_style=True, width=10**9, sort_keys=False).strip()


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: short names for it are hard to read on a command line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _located(attack: Part, folder: Path) -> Part:
    """The attack as it is, or the path of its file or folder: beside the user, beside the study, or in the package."""
    if not isinstance(attack, str):
        return attack
    found = find_attack(attack, (Path(), folder))
    if found is not None:
        return str(found)
    for place in (Path(), folder):
        if isdir(place / attack):
            return str(place / attack)
    if Path(attack).suffix in (".yaml", ".yml"):
        raise StudyError(f"attacks: there is no file '{attack}' in '{Path.cwd()}' or '{folder.absolute()}'")
    close = get_close_matches(attack.lower(), attack_names(), n=5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise StudyError(f"attacks: there is no attack '{attack}'\n{hint}The command `attacks` lists all")


def _radius(budget: Mapping[str, Any], folder: str) -> Any:
    """The L-inf radius within which the images of a folder are checked; None: the study has no budgets."""
    if not budget:
        return None
    said, remedy = inline(budget), "score the folder in a study of its own, without budgets or with L-inf ones"
    if any(str(key).partition(".")[0] == "norm" and norm != "linf" for key, norm in budget.items()):
        raise StudyError(
            f"budgets: {said}: the images of the folder '{folder}' can be checked within an L-inf radius only\n{remedy}"
        )
    if budget.get("eps") is None:
        raise StudyError(
            f"budgets: {said} has no eps, by which the images of the folder '{folder}' are checked\ngive it one, or "
            + remedy
        )
    return budget["eps"]


def _images_of(folder: Path, source: str, sources: Sequence[str], eps: Any) -> dict[str, Any]:
    """What is said at `data` so that the images of a folder are scored, which were made on a source within a radius."""
    if not (folder / source).is_dir():
        raise StudyError(
            f"attacks: '{folder}' has no folder '{source}'\nimages that another tool attacked lie in a folder for each "
            f"source: {', '.join(str(folder / name) for name in sources)}"
        )
    budget = {} if eps is None else {"adversarial_eps": eps}
    return {"adversarial_root": str(folder / source), **budget}


def _plain(value: Any) -> str:
    """A setting in the name of a folder.

    Example:
        >>> _plain("4/255"), _plain([3, 5])
        ('4-255', '3-5')
    """
    return re.sub(r"[^\w.+-]+", "-", str(value).replace(" ", "").strip("[]"))
