"""Several results of a benchmark as one table: in Markdown, or as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_attack.common.counted import counted
from lightning_attack.common.markdown import escape, table_row
from lightning_attack.report.submission import KINDS
from lightning_attack.report.tables import percent
from lightning_attack.report.templates import TEMPLATES, policy, style


class Ranked(NamedTuple):
    """An attack of some submissions.

    Attributes:
        attack: as it stands in them.
        names: of the submissions that have it, with equal settings and figures.
    """

    attack: Mapping[str, Any]
    names: list[str]

    @property
    def means(self) -> list[str]:
        """MIoU in percent by `KINDS`."""
        return [percent(math.nan if value is None else value) for value in map(self.attack["means"].get, KINDS)]

    @property
    def passes(self) -> str:
        """Backward passes for each image."""
        passes = self.attack["backward_passes"]
        return "-" if passes is None else f"{passes:g}"


def ranked(submissions: Mapping[str, Mapping[str, Any]]) -> list[Ranked]:
    """All attacks of some submissions, the strongest transfer first.

    Args:
        submissions: by name, see `submission.read_submissions`.
    """
    rows: dict[str, Ranked] = {}
    for name, one in submissions.items():
        for attack in one["attacks"]:
            key = json.dumps([attack["name"], attack["settings"], attack["means"]], sort_keys=True)
            rows.setdefault(key, Ranked(attack, [])).names.append(name)
    return sorted(rows.values(), key=_strength)


def leaderboard(submissions: Mapping[str, Mapping[str, Any]]) -> str:
    """All attacks of some submissions as a Markdown table, the strongest transfer first.

    An attack that stands in several submissions with equal settings and figures has one row.

    Example:
        >>> means = {"plain": 0.5, "defended": None, "white box": 0.125}
        >>> attack = {"name": "mine", "settings": {}, "backward_passes": 10.0, "means": means, "scores": []}
        >>> one = {"benchmark": "scenes-1", "images": 32, "attacks": [attack]}
        >>> print(leaderboard({"a": one, "b": one}))
        # scenes-1
        <BLANKLINE>
        mIoU in percent over 32 images, lower = stronger: means over sources and targets of a kind.
        <BLANKLINE>
        | attack | backward passes | plain | defended | white box | from |
        |---|---|---|---|---|---|
        | mine | 10 | 50.00 | - | 12.50 | a, b |
        <BLANKLINE>
    """
    first = next(iter(submissions.values()))
    lines = [
        f"# {escape(first['benchmark'])}",
        "",
        f"mIoU in percent over {counted(first['images'], 'image')}, lower = stronger: means over sources and targets "
        "of a kind.",
        "",
        table_row(["attack", "backward passes", *KINDS, "from"]),
        "|---|---|---|---|---|---|",
    ]
    for row in ranked(submissions):
        lines.append(table_row([escape(row.attack["name"]), row.passes, *row.means, escape(", ".join(row.names))]))
    return "\n".join([*lines, ""])


def leaderboard_page(submissions: Mapping[str, Mapping[str, Any]]) -> str:
    """The same as a page that needs no other file and no network, with all figures, intervals and settings.

    Args:
        submissions: of one benchmark by name, see `submission.read_submissions`.
    """
    rows = ranked(submissions)
    first = next(iter(submissions.values()))
    return TEMPLATES.get_template("leaderboard.html").render(
        policy=policy(),
        style=style(),
        name=first["benchmark"],
        facts=[*_facts(submissions)],
        kinds=KINDS,
        ranking=[
            {
                "attack": row.attack["name"],
                "passes": row.passes,
                "means": row.means,
                "names": ", ".join(row.names),
                "settings": json.dumps(row.attack["settings"], indent=1),
            }
            for row in rows
        ],
        tables=[*_tables(rows)],
    )


def _facts(submissions: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    first = next(iter(submissions.values()))
    yield "images", str(first["images"])
    yield "check", first["check"]
    for name, one in submissions.items():
        versions = [f"{package} {version}" for package, version in one.get("versions", {}).items()]
        yield name, ", ".join(versions) or "versions not known"


def _tables(rows: Sequence[Ranked]) -> Iterator[dict[str, Any]]:
    """For each source its targets (columns) under all attacks on it."""
    scores = [score for row in rows for score in row.attack["scores"]]
    for source in dict.fromkeys(score["source"] for score in scores):
        own = [score for score in scores if score["source"] == source]
        order = sorted(own, key=lambda score: KINDS.index(score["kind"]))
        targets = list(dict.fromkeys(score["target"] for score in order))
        clean = {score["target"]: score["clean_miou"] for score in own}
        best = {target: _lowest(own, target) for target in targets}
        lines = []
        for row in rows:
            found = {score["target"]: score for score in row.attack["scores"] if score["source"] == source}
            if found:
                cells = [_cell(found.get(target), best[target]) for target in targets]
                lines.append({"attack": row.attack["name"], "cells": cells, "names": ", ".join(row.names)})
        yield {
            "source": source,
            "targets": targets,
            "clean": [percent(clean[target]) for target in targets],
            "lines": lines,
        }


def _cell(score: Mapping[str, Any] | None, best: float) -> dict[str, str]:
    if score is None:
        return {"value": "-", "interval": "", "kind": ""}
    low, high = score["low"], score["high"]
    known = low is not None and not math.isnan(low)
    white_box = score["kind"] == "white box"
    kind = "white-box" if white_box else "best" if score["miou"] == best else ""
    return {
        "value": percent(score["miou"]),
        "interval": f"{percent(low)}..{percent(high)}" if known else "",
        "kind": kind,
    }


def _lowest(scores: Sequence[Mapping[str, Any]], target: str) -> float:
    return min(score["miou"] for score in scores if score["target"] == target)


def _strength(row: Ranked) -> float:
    plain = row.attack["means"].get("plain")
    return math.inf if plain is None or math.isnan(plain) else float(plain)
