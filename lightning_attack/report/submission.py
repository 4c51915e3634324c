"""`submission`: the result of a benchmark as plain values to be stored; `read_submissions`: several of them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_attack.report.collect import collect
from lightning_attack.report.groups import group_runs
from lightning_attack.report.intervals import DRAWS, Interval
from lightning_attack.report.row_names import row_names
from lightning_attack.report.sheet import Row, Score, compute
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.summary import MASKS

KINDS = ("plain", "defended", "white box")
"""Kinds of targets: other networks, networks behind defences, and the attacked network itself."""

_NUMBER, _NONE = (int, float), type(None)
_RESULT = {"benchmark": (str,), "check": (str,), "images": (int,), "attacks": (list,)}
_OF_LATER: dict[str, tuple[type, ...]] = {"versions": (dict,), "runs": (list,)}
_ATTACK = {
    "name": (str,),
    "settings": (dict,),
    "backward_passes": (*_NUMBER, _NONE),
    "scores": (list,),
    "means": (dict,),
}
_MEANS: dict[str, tuple[type, ...]] = {kind: (*_NUMBER, _NONE) for kind in KINDS}
_SCORE = {
    **dict.fromkeys(("source", "target", "kind"), (str,)),
    **dict.fromkeys(("clean_miou", "miou"), _NUMBER),
    **dict.fromkeys(("low", "high"), (*_NUMBER, _NONE)),
}
"""What the values of a result, of its attacks, of their means and of their scores are."""


@dataclass(frozen=True)
class Benchmark:
    """What a submission is a result of.

    Attributes:
        name: of the benchmark, with its number, such as `scenes-1`.
        study: the content of its file but for the attacks.
        defended: names of the networks behind defences.
    """

    name: str
    study: Mapping[str, Any]
    defended: frozenset[str]


def submission(benchmark: Benchmark, folders: Sequence[Path], draws: int = DRAWS) -> dict[str, Any]:
    """The figures of a benchmark's finished runs, as plain values for a JSON file.

    `benchmark` (its name), `check` (a hash of its file, of its networks and of its photos, by which results that do not
    compare are known), `versions`, `images`, `runs` (names of their folders), and for each of the `attacks`: `name`,
    `settings`, `backward_passes` per image (null for images that another program attacked), `scores` (for each `source`
    and `target` the `kind` of target, and in [0, 1] `clean_miou`, `miou` with the ends of its 95 % interval, `low` and
    `high`; of several seeds the mean), and `means` of the mIoU over the scores of each kind. Attacks of one name and
    other settings, such as another radius, are told apart by these.

    Args:
        benchmark: what was run.
        folders: of its runs.
        draws: of the bootstrap.

    Raises:
        RunsError: a run is missing or not finished, or the runs are of different photos or networks.
    """
    found, _ = collect([str(folder) for folder in folders])
    groups, _ = group_runs(found)
    if len({run.source for run in found}) > 1 and any(run.summary.get("labels", MASKS) != MASKS for run in found):
        raise RunsError(
            f"the photos of '{benchmark.name}' have no masks, so the labels are what each source predicts, and runs "
            "on several sources do not compare\ngive the photos masks, or the benchmark one source"
        )
    if len(groups) != 1:
        raise RunsError(f"the runs of '{benchmark.name}' are of different photos or networks; start it in a new folder")
    sheet = compute(groups[0], draws=draws, mean=True)
    rows: dict[str, list[Row]] = {}  # of an attack on all sources; with other settings, such as a radius, it is another
    for row in (row for section in sheet.sections for row in section.rows):
        run = row.entry.first
        rows.setdefault(json.dumps([run.attack, run.summary["settings"]["attack"]]), []).append(row)
    names = row_names([own[0].entry.first for own in rows.values()], ["seed"])
    first = found[0].summary
    networks = {name: mark for run in found for name, mark in run.settings["model"]["targets"].items()}
    photos = sorted(record for record in found[0].images)
    return {
        "benchmark": benchmark.name,
        "check": _digest(benchmark.study, networks, photos),
        "versions": first.get("versions", {}),
        "images": sheet.images,
        "runs": [folder.name for folder in folders],
        "attacks": [_attack(name, own, benchmark) for name, own in zip(names, rows.values(), strict=True)],
    }


def _attack(name: str, rows: Sequence[Row], benchmark: Benchmark) -> dict[str, Any]:
    summary = rows[0].entry.first.summary
    attack = summary["settings"]["attack"]
    scores = [_score(row, cell, benchmark) for row in rows for cell in row.cells.values()]
    return {
        "name": name,
        "settings": attack,
        # What images cost that another program made is not known.
        "backward_passes": None if attack["class"] == "Given" else summary["passes_per_image"].get("backward"),
        "scores": scores,
        "means": {kind: _mean(scores, kind) for kind in KINDS},
    }


def _score(row: Row, cell: Score, benchmark: Benchmark) -> dict[str, Any]:
    kind = "white box" if cell.white_box else "defended" if cell.target in benchmark.defended else "plain"
    figures: Interval = cell.adversarial
    return {
        "source": row.entry.first.source,
        "target": cell.target,
        "kind": kind,
        "clean_miou": cell.clean.value,
        "miou": figures.value,
        "low": figures.low,
        "high": figures.high,
    }


def _mean(scores: Sequence[Mapping[str, Any]], kind: str) -> float | None:
    own = [score["miou"] for score in scores if score["kind"] == kind]
    return fmean(own) if own else None


def _digest(*parts: object) -> str:
    return blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _check(found: object, what: str, kinds: Mapping[str, tuple[type, ...]], optional: bool = False) -> None:
    """Raise `ValueError` if something read from a file has not the values of results; `optional` ones may lack."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no mapping of keys to values")
    for key, kind in kinds.items():
        if key not in found:
            if optional:
                continue
            raise ValueError(f"{what} has no '{key}'")
        if not isinstance(found[key], kind) or isinstance(found[key], bool):
            raise ValueError(f"'{key}' of {what} is {found[key]!r:.40}")
    if "kind" in kinds and found["kind"] not in KINDS:
        raise ValueError(f"{what} has the kind '{found['kind']}'; known: {', '.join(KINDS)}")


def read_submissions(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Submissions by the names of their files without suffix.

    Raises:
        RunsError: a file is no submission, two files have one name, or they are of different benchmarks.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            content = json.loads(file.read_text("utf-8"))
            _check(content, "it", _RESULT)
            _check(content, "it", _OF_LATER, optional=True)
            for attack in content["attacks"]:
                _check(attack, "an attack in it", _ATTACK)
                _check(attack["means"], "the means of an attack in it", _MEANS, optional=True)
                for score in attack["scores"]:
                    _check(score, "a score in it", _SCORE)
        except OSError as error:
            raise RunsError(f"'{file}' cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise RunsError(f"'{file}' is no result of the command benchmark ({error})") from error
        if file.stem in found:
            raise RunsError(f"two files are named '{file.stem}'; rename one, for rows are told apart by it")
        found[file.stem] = content
    first, *others = found.items()
    for name, other in others:
        if (other["benchmark"], other["check"]) != (first[1]["benchmark"], first[1]["check"]):
            raise RunsError(
                f"'{first[0]}' and '{name}' do not compare: they are of {first[1]['benchmark']} ({first[1]['check']}) "
                f"and {other['benchmark']} ({other['check']}), which differ in their file, networks or photos"
            )
    return found
