"""The README's table of all presets on real photos: `python -m tests.readme.presets_table [PRESET ...]`.

Every preset spends 10 backward passes on the source for each photo, so that the table compares ideas and not budgets
(see `SPENT` for those that cannot). It is a study: the command goes on where it was stopped, and a row that is there is
not run again. Figures are those of `report`: means over all pairs of a source and a target of another family, with 95 %
intervals over the photos, and paired differences to the same photos under `mi_fgsm`.

    python -m tests.readme.presets_table                    # run what is missing, then print the table
    python -m tests.readme.presets_table --write            # and put it into the README
    python -m tests.readme.presets_table pgd segpgd         # these rows only
    python -m tests.readme.presets_table --only-table       # of what is there

Runs of an attack whose settings have changed since are refused, as by `study`; move their folders away.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from lightning_attack import attacks
from lightning_attack.attacks import PRESETS
from lightning_attack.cli.study import run_study
from lightning_attack.common.pixels import parse_pixels
from lightning_attack.report.intervals import Interval, mean_difference, mean_interval
from lightning_attack.runs.folder import Run, common_images, read_run
from lightning_attack.runs.names import SUMMARY
from lightning_attack.study.plan import Study

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "configs" / "presets_table.yaml"
README = ROOT / "lightning_attack" / "attacks" / "README.md"
STEPS = 10
AGAINST = "mi_fgsm"
"""What the others are compared with."""
ON_ENSEMBLE = f"{AGAINST}_ensemble"
"""The same on the ensembles, beside the attacks that need one."""
TECHNIQUES = {
    "transegpgd": "none", "transegpgd_mi": "MI", "transegpgd_ni": "NI", "transegpgd_di": "DI", "transegpgd_ti": "TI",
    "transegpgd_si": "SI and MI", "transegpgd_vmi": "VT and MI", "transegpgd_mi_di_ti": "MI, DI and TI",
    "transegpgd_best": "those of `transfer_best`, without its pull",
}  # fmt: skip
"""What TranSegPGD is combined with in the presets that stand beside PGD with the same techniques."""
EVEN = "_even"
"""Ending of the rows that are TranSegPGD with even weights, which is PGD."""

SPENT: dict[str, dict[str, Any]] = {
    "fgsm": {},
    # Two gradients a step, so half of the steps.
    "si_ni_fgsm": {"copies": 2, "steps": 5},
    "transegpgd_si": {"copies": 2, "steps": 5},
    "vmi_fgsm": {"samples": 1, "steps": 5},
    "vni_fgsm": {"samples": 1, "steps": 5},
    "transegpgd_vmi": {"samples": 1, "steps": 5},
    "emi_fgsm": {"samples": 2, "steps": 5},
    "pgn": {"samples": 1, "steps": 5},
    "mef": {"samples": 2, "steps": 5},
    "gra": {"samples": 1, "steps": 5},
    "smi_fgrm": {"samples": 1, "steps": 5},
    "ie_fgsm": {"steps": 5},
    "dta": {"inner_steps": 2, "steps": 5},
    "fgsra": {"samples": 1, "steps": 5},
    "taig": {"points": 2, "steps": 5},
    "admix": {"copies": 2, "scales": 1, "steps": 5},
    "us_mm": {"scales": 2, "masks": 1, "steps": 5},
    "ssa": {"copies": 2, "steps": 5},
    "decowa": {"steps": 5},
    "dem": {"rates": [1.27, 1.53], "steps": 5},
    "mig": {"points": 2, "steps": 5},
    "mumodig": {"copies": 1, "steps": 5},
    "aes": {"runs": 2, "steps": 5},
    ON_ENSEMBLE: {"steps": 5},
    # Some of the passes before the steps, or in some steps only.
    "fia": {"samples": 5, "steps": 5},
    "naa": {"samples": 5, "steps": 5},
    "bfa": {"samples": 2, "steps": 6},
    "gi_fgsm": {"pre_steps": 3, "steps": 7},
    "rap": {"inner_steps": 1, "late_start": 0.34, "steps": 6},
    # No multiple of them makes 10.
    "anda": {"grid": 2, "steps": 2},
    "mask_block": {"grid": 2, "steps": 2},
    "svre": {"inner_steps": 1, "steps": 2},
    "adaea": {"steps": 2},
    "cwa": {"steps": 2},
    "sea": {"steps": 3},
    # No radius: steps with which they get far enough.
    "alma_prox": {"steps": STEPS, "step_size": 0.01},
    "dag": {"steps": STEPS, "step_size": "4/255"},
}
"""What each preset is given in place of its own settings; nothing = 10 steps."""

LEFT_OUT = {"pna", "tgr"}
"""Presets that the sources of the table cannot be attacked with: these have no attention."""
OF_OTHER_SETTINGS = {"transegpgd_misclassified": "transegpgd"}
"""Files of `configs/attacks` that are another preset with other settings."""
PRESETS_SHOWN = [
    "no_attack", *(preset.__name__ for preset in PRESETS if preset.__name__ not in LEFT_OUT), *OF_OTHER_SETTINGS
]  # fmt: skip
ROWS = [*PRESETS_SHOWN, ON_ENSEMBLE, *(row + EVEN for row in TECHNIQUES)]

FIRST = (
    "no_attack", "mi_fgsm", "pgd", "segpgd", "cospgd", "transegpgd", "transegpgd_mi_di_ti", "di_fgsm", "ti_fgsm",
    "ni_fgsm", "fgsm", "bim", "si_ni_fgsm", "vmi_fgsm", "admix", "bsr", "sgm", "bpa",
)  # fmt: skip
"""These are run before the others, which keep the order of the presets."""

GROUPS = {
    "none": "without an attack",
    "white_box": "losses",
    "features": "losses on features",
    "gradients": "momentum and sampled gradients",
    "steps": "directions of steps",
    "views": "input transforms",
    "paths": "integrated gradients",
    "source": "source transforms",
    "transegpgd": "TranSegPGD",
    "combined": "combinations",
    "own": "loops of their own",
    "ensembles": "several runs, or both networks of a family as source",
}
"""The modules of presets, in the order of the table, and what their rows have in common."""

HEADING = ("attack", "backward passes", "mIoU white box", "mIoU transfer [95 %]", f"difference to `{AGAINST}` [95 %]",
           "accuracy transfer", "median L-inf /255")  # fmt: skip

ABOUT = """\
Two sources: a DeepLabV3 with MobileNetV2 of half width, and an FPN with EfficientNet-Lite2. Four targets: these two,
the DeepLabV3 of full width, and a DeepLabV3+ with EfficientNet-Lite1. {photos} photos of PASCAL VOC val at 256 pixels,
with nine classes in their labels; no attack was tuned on them. {steps} backward passes per photo for all attacks, the
default engine. *Transfer* is the mean of the four pairs of a source and a target of the other family; intervals are
over the photos, those of differences are paired. mIoU and pixel accuracy in percent; lower means a stronger attack.
Sorted by transfer in each group.
"""

CLEAN = [
    preset.__name__ for preset in PRESETS
    if any(transform.needs_clean for transform in getattr(preset(), "source_transforms", []))
]  # fmt: skip
"""Presets that pass the clean images through the source in each step."""

NOTES = f"""
Steps are as long as the attack's own settings say; attacks with fewer than {STEPS} steps take longer ones, at most eps
each, so that the total length stays the same. Attacks that ask for several gradients per step take two in each of
5 steps. Some rows cannot be fair: `fgsm` has one step; {STEPS} is no multiple of the passes per step of `anda`,
`mask_block`, `svre`, `adaea`, `cwa` and `sea`; and `dag` and `alma_prox` have no radius, and take longer steps than
their own here. `svre`, `adaea`, `cwa` and
`source_rotation` attack both networks of a family together, and pay for both; beside them stands `{AGAINST}` on the
same ensembles. `fia`, `naa` and `bfa` spend some of their passes before the first step, `decowa` half of them on its
bends. Forward passes without a backward pass are not counted: one of the clean images in each step of
{", ".join(f"`{name}`" for name in CLEAN[:-1])} and `{CLEAN[-1]}`, and four in each step of `adaea`.
`pna` and `tgr` are missing, because the sources have no attention. From a SegFormer that has (MiT-B0, clean mIoU 18),
their mean over the same photos and targets is 55.9 and 56.3, that of `mi_fgsm` 56.0
(`python main.py study -c tests/configs/attention_table.yaml`)."""

ABOUT_WEIGHTS = """
What the weights of the two stages are worth: TranSegPGD with other techniques beside the same with even weights
(`gamma` and `beta` 0.5), which is PGD with these techniques. Transfer mIoU of the same pairs; a difference below 0
speaks for TranSegPGD:
"""


class Pair(NamedTuple):
    """An attack on a source as a target sees it."""

    run: Run
    target: str


def group(row: str) -> str:
    """The part of the table in which a row stands."""
    if row == "no_attack":
        return "none"
    return "ensembles" if needs_ensemble(row) else _preset(row).__module__.rpartition(".")[2]


def settings(row: str) -> dict[str, Any]:
    """The attack of a row, as it would stand in a file."""
    preset = row.removesuffix("_ensemble").removesuffix(EVEN)
    part: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "attacks" / f"{preset}.yaml").read_text())
    own = part.get("init_args", {})
    given = SPENT.get(row.removesuffix(EVEN), {"steps": STEPS} if own else {})
    steps = given.get("steps", STEPS)
    if "step_size" in own and "eps" in own and steps < STEPS:  # few steps go as far as ten do, if the radius lets them
        size = getattr(attacks, preset)(**own | {"steps": STEPS}).step_size
        given = {"step_size": min(size * STEPS / steps, parse_pixels(own["eps"])), **given}
    if own:
        part["init_args"] = own | given
    if row == ON_ENSEMBLE:
        part["init_args"] |= {"name": row}
    if row.endswith(EVEN):
        part["init_args"] |= {"name": row, "gamma": 0.5, "beta": 0.5}
    return part


def read_plan(file: Path, rows: Sequence[str], limit: int | None) -> tuple[list[Study], dict[str, str]]:
    """The studies of some rows, one on single networks and one on ensembles, and the families of networks."""
    content = yaml.safe_load(file.read_text())
    families = content.pop("families")
    there = {name: one for name, one in content["networks"].items() if _is_there(one)}
    if missing := content["networks"].keys() - there.keys():
        print(f"left out, as their files are missing: {', '.join(sorted(missing))}", file=sys.stderr)
    content |= {"networks": there} | {key: [name for name in content[key] if name in there]
                                      for key in ("sources", "targets")}  # fmt: skip
    content["data"] |= {} if limit is None else {"limit": limit}
    studies = []
    for together in (False, True):
        chosen = [row for row in rows if needs_ensemble(row) == together]
        sources = [name for name in content["sources"] if (there[name]["class_path"] == "Ensemble") == together]
        if chosen and sources:
            study = {row: settings(row) for row in chosen}
            studies.append(Study(**{**content, "sources": sources, "attacks": study}))
    return studies, families


def needs_ensemble(row: str) -> bool:
    """Whether the source of a row is an ensemble."""
    return row == ON_ENSEMBLE or (row in PRESETS_SHOWN[1:] and bool(_preset(row)().needs_members))


def read_runs(folder: Path, row: str, families: dict[str, str]) -> list[Run]:
    """The finished runs of a row, one for each source."""
    folders = [folder / f"{row}_{source}" for source in families]
    runs = [read_run(one) for one in folders if (one / SUMMARY).exists()]
    return [run for run in runs if not run.partial]


def transfers(runs: Sequence[Run], families: dict[str, str]) -> dict[tuple[str, str], Pair]:
    """The pairs of a source and a target of another family, by family of the source and name of the target."""
    return {(families[run.source], target): Pair(run, target)
            for run in runs for target in run.targets if families[target] != families[run.source]}  # fmt: skip


def cells(row: str, runs: Sequence[Run], base: Sequence[Run], families: dict[str, str]) -> tuple[float, list[str]]:
    """One row of the table, after the figure by which it is sorted."""
    pairs, others = transfers(runs, families), transfers(base, families)
    own = mean_interval(_counts([*pairs.values()]))
    both = [key for key in pairs if key in others]
    difference = ""
    if row != AGAINST and both:
        found = mean_difference(_counts([pairs[key] for key in both]), _counts([others[key] for key in both]))
        difference = _with_ends(found, "+")
    figures = [[one for one in run.summary["targets"] if one["white_box"]] for run in runs]
    white = np.mean([np.mean([100 * one["adversarial_miou"] for one in rows]) for rows in figures])
    accuracy = np.mean([100 * one["adversarial_accuracy"] for run in runs for one in run.summary["targets"]
                        if families[one["target"]] != families[run.source]])  # fmt: skip
    passes = np.mean([run.summary["passes_per_image"]["backward"] for run in runs])
    norm = np.mean([run.summary["perturbation"]["linf_median"] for run in runs])
    name = f"`{AGAINST}` on the ensemble" if row == ON_ENSEMBLE else f"`{row}`"
    shown = [name, f"{passes:.0f}", f"{white:.1f}", _with_ends(own), difference, f"{accuracy:.1f}", f"{norm:.0f}"]
    return own.value, shown


def table(folder: Path, rows: Sequence[str], families: dict[str, str]) -> tuple[list[str], list[str]]:
    """The lines of the tables, and the rows that are not run yet on all sources."""
    found, missing = {}, []
    runs_of = {row: read_runs(folder, row, families) for row in {*rows, AGAINST}}
    most, base = max((len(runs_of[row]) for row in rows), default=0), runs_of[AGAINST]
    for row in rows:
        runs = runs_of[row]
        if len(runs) < most or not runs:
            missing.append(row)
        elif not row.endswith(EVEN):
            found[row] = cells(row, runs, base, families)
    lines = [f"| {' | '.join(HEADING)} |", f"|{'---|' * len(HEADING)}"]
    for module, name in GROUPS.items():
        mine = sorted((found[row] for row in found if group(row) == module), key=lambda one: one[0])
        lines += [f"| **{name}** |{' |' * (len(HEADING) - 1)}"] * bool(mine)
        lines += [f"| {' | '.join(one)} |" for _, one in mine]
    return lines, missing


def weights(folder: Path, families: dict[str, str]) -> list[str]:
    """The lines of the table of TranSegPGD beside PGD, as far as both are run."""
    lines = ["| with | TranSegPGD | PGD | difference [95 %] |", "|---|---|---|---|"]
    for row, techniques in TECHNIQUES.items():
        weighted, even = (transfers(read_runs(folder, one, families), families) for one in (row, row + EVEN))
        if both := [key for key in weighted if key in even]:
            own, other = (_counts([found[key] for key in both]) for found in (weighted, even))
            shown = [_with_ends(mean_interval(own)), _with_ends(mean_interval(other))]
            lines.append(f"| {techniques} | {' | '.join(shown)} | {_with_ends(mean_difference(own, other), '+')} |")
    return lines


def about(photos: int) -> str:
    """What the table shows."""
    return ABOUT.format(photos=photos, steps=STEPS)


def write(lines: Sequence[str], beside: Sequence[str], photos: int) -> None:
    """Put the tables into the README, and what they show, in place of what is there."""
    mark = "<!-- {}presets-table -->"
    pattern = f"({mark.format('')}\n).*(\n{mark.format('/')})"
    shown = "\n".join([about(photos), *lines, NOTES, ABOUT_WEIGHTS, *beside])
    README.write_text(re.sub(pattern, lambda match: match[1] + shown + match[2], README.read_text(), flags=re.DOTALL))


def run(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help="rows to run and show; default: all")
    parser.add_argument("--limit", type=int, help="number of photos; default: all of the study")
    parser.add_argument("--results", type=Path, default=Path("results/presets_table"), help="folder of the runs")
    parser.add_argument("--study", type=Path, default=CONFIG, help="file of the study")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="put the table into the README; it must be complete")
    given = parser.parse_args(words)
    if unknown := [row for row in given.presets if row not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}")
    if given.write and given.presets:
        parser.error("--write needs the table of all presets")
    rows = [row for row in ROWS if not given.presets or row in given.presets]
    rows.sort(key=lambda row: (row.endswith("_best"), FIRST.index(row) if row in FIRST else len(FIRST)))
    studies, families = read_plan(given.study, rows, given.limit)
    alone = {source for study in studies for source in study.sources
             if all(families[target] == families[source] for target in study.targets)}  # fmt: skip
    if alone:
        parser.error(f"of the networks that are there, none is of another family than {', '.join(sorted(alone))}")
    sys.argv[1:] = []  # LightningCLI would look at them
    for study in [] if given.only_table else studies:
        if code := run_study(study, given.study, given.results, ["study"]):
            raise SystemExit(code)
    lines, missing = table(given.results, rows, families)
    beside = weights(given.results, families)
    print("\n".join([*lines, "", *beside]))
    if missing:
        print(f"not there yet: {', '.join(missing)}", file=sys.stderr)
    if given.write:
        if missing:
            raise SystemExit("the README is as it was: its table must be complete")
        write(lines, beside, len(read_runs(given.results, AGAINST, families)[0].images))


def _preset(row: str) -> Callable[..., Any]:
    return getattr(attacks, OF_OTHER_SETTINGS.get(row, row))


def _counts(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The adversarial counts of some pairs, on the photos that all of them have."""
    runs = [one.run for one in pairs]
    images = common_images(runs, runs[0].images)
    return [one.run.counts(one.target, images)[:, 1] for one in pairs]


def _with_ends(interval: Interval, sign: str = "") -> str:
    value, *ends = (f"{100 * one + 0.0:{sign}.1f}" for one in (interval.value, interval.low, interval.high))
    return value if math.isnan(interval.low) else f"{value} [{', '.join(ends)}]"


def _is_there(network: dict[str, Any]) -> bool:
    """Whether the files of a network exist, and of all members of an ensemble."""
    own = network["init_args"]
    files = [own[key] for key in ("path", "file") if key in own]
    return all(file.startswith("embedded:") or (ROOT / file).exists() for file in files) and all(
        map(_is_there, own.get("members", []))
    )


if __name__ == "__main__":
    run()
