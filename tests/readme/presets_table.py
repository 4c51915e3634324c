"""The README's table of all presets on real photos: `python -m tests.readme.presets_table`.

Every preset spends 20 backward passes on the source network for each photo (`fgsm` has one step, and the three attacks
of `sea` share 18), whatever its defaults, so that the table compares ideas and not budgets.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

from lightning_attack.attacks import PRESETS
from lightning_attack.cli.main import main

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "configs" / "presets_table.yaml"
# Several gradients a step: as many steps and samples as 20 gradients allow. One is enough for the others.
SPENT = {
    # With few steps, long ones.
    "si_ni_fgsm": {"steps": 4, "step_size": "2/255"},
    "transegpgd_si": {"steps": 4},
    "vmi_fgsm": {"samples": 4, "steps": 4},
    "vni_fgsm": {"samples": 4, "steps": 4, "step_size": "2/255"},
    "transegpgd_vmi": {"samples": 4, "steps": 4},
    "emi_fgsm": {"samples": 5, "steps": 4, "step_size": "2/255"},
    "pgn": {"samples": 2, "steps": 5},
    "admix": {"copies": 1, "steps": 4},
    "ssa": {"copies": 5, "steps": 4},
    "fia": {"samples": 10, "steps": 10},
    "naa": {"samples": 10, "steps": 10},
    "bfa": {"samples": 5, "steps": 10},
    "decowa": {"steps": 10},
    "transfer_best": {"steps": 20},
    "transegpgd_best": {"steps": 20},
    "mef": {"samples": 4, "steps": 5},
    "us_mm": {"masks": 1, "steps": 4},
    "gra": {"samples": 4, "steps": 4},
    "gi_fgsm": {"steps": 15},  # and 5 before
    "ie_fgsm": {"steps": 10},
    "rap": {"inner_steps": 2, "steps": 8},  # the first two without them
    "smi_fgrm": {"samples": 4, "steps": 4},
    "dem": {"steps": 4},
    "anda": {"grid": 2, "steps": 5},
    "mask_block": {"grid": 2, "steps": 5},
    "mig": {"points": 4, "steps": 5},
    "mumodig": {"copies": 3, "steps": 5},
    "sea": {"steps": 6},
    # On an ensemble of one.
    "svre": {"inner_steps": 2, "steps": 5},
    "adaea": {"steps": 10},
    "cwa": {"steps": 10},
    "aes": {"runs": 2, "steps": 10},
    "alma_prox": {"steps": 20, "step_size": 0.005},
    "dag": {"steps": 20, "step_size": "4/255"},
}

LEFT_OUT = {"pna", "tgr"}
"""Presets that the source of the table cannot be attacked with: it has no attention."""
PRESETS_SHOWN = ["no_attack", *(preset.__name__ for preset in PRESETS if preset.__name__ not in LEFT_OUT)]


def score(preset: str, limit: int, results: Path) -> list[str]:
    """One row of the table."""
    options = [f"--model.attack.{name}={value}" for name, value in SPENT.get(preset, {}).items()]
    if preset in ("adaea", "cwa", "source_rotation", "svre"):
        options += ["-c", str(CONFIG.with_name("presets_table_ensemble.yaml"))]
    attack = ROOT / "configs" / "attacks" / f"{preset}.yaml"
    arguments = [f"--model.attack={attack}", *options, f"--data.limit={limit}"]
    code = main(["predict", "-c", str(CONFIG), *arguments, f"--results={results}", f"--run_name={preset}"])
    if code:
        raise SystemExit(code)
    white_box, other = csv.DictReader((results / preset / "transfer.csv").open())
    report = json.loads((results / preset / "transfer.json").read_text())
    figures = [100 * float(row[column]) for column in ("adversarial_miou", "adversarial_accuracy")
               for row in (white_box, other)]  # fmt: skip
    passes, norm = report["passes_per_image"]["backward"], report["perturbation"]["linf_median"]
    return [f"`{preset}`", f"{passes:.0f}", *(f"{figure:.1f}" for figure in figures), f"{norm:.0f}"]


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS_SHOWN)
    parser.add_argument("--limit", type=int, default=16, help="number of photos")
    arguments = parser.parse_args()
    sys.argv[1:] = []  # LightningCLI would look at them
    with tempfile.TemporaryDirectory() as folder:
        rows = [score(preset, arguments.limit, Path(folder)) for preset in arguments.presets]
    print("| attack | backward passes | mIoU white box | mIoU transfer | accuracy white box | accuracy transfer "
          "| median L-inf /255 |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for row in sorted(rows, key=lambda row: float(row[3])):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    run()
