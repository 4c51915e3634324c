"""What the README asks for is enough to add a source transform: done in a copy of the repository, whose tests pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = "lightning_attack/attacks"

CLASS = '''"""Source transform that damps."""

import torch

from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.surrogate import with_gradient_of


class Damped(SourceTransform):
    """Halve the gradient of every second convolution; its values stay."""

    def rewrite(self, graph):
        for node in graph.find(self, "convolutions", graph.all(torch.ops.aten.convolution))[::2]:
            graph.follow(node, lambda value: with_gradient_of(value, 0.5 * value))
'''
PRESET = '''

def damped(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """Damped: MI with weaker gradients of convolutions, see `Damped`.

        slope of y with respect to x: half of it

    Source: Y. Author, 2031, arXiv 3101.00001.
    """
    defaults: Settings = {"random_start": True}
    return build("damped", CrossEntropy(), settings, defaults, gradients=momentum(decay), sources=[Damped()])
'''
PAPER = """
@misc{author2031damped,
  author = {Author, Y.},
  title = {Damped},
  year = {2031},
  eprint = {3101.00001},
  archiveprefix = {arXiv},
}
"""
LINK = "[3101.00001](https://arxiv.org/abs/3101.00001)"
ROW = f"| `damped` | 2031 | {LINK} | `CrossEntropy`, `Momentum`, `Damped` | 20 | MI with weaker gradients |\n"
IMPORT = "from lightning_attack.attacks.source_transforms.damped import Damped\n"
SOURCE = "from lightning_attack.attacks.source_transforms.{} import "


def before(file, place, text):
    """Put a text into a file, in front of the only place that is like `place`."""
    old = file.read_text()
    assert old.count(place) == 1, (file, place)
    file.write_text(old.replace(place, text + place))


@pytest.fixture
def copy(tmp_path):
    """The repository with a source transform more, added as the section *Add an attack* says."""
    ignore = shutil.ignore_patterns("__pycache__", "results", ".git")
    for name in ("lightning_attack", "configs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    attacks = tmp_path / HERE
    (attacks / "source_transforms" / "damped.py").write_text(CLASS)  # 1
    before(attacks / "__init__.py", SOURCE.format("features") + "(", IMPORT)
    before(attacks / "__init__.py", '    "DecayIndicator",\n', '    "Damped",\n')
    presets = attacks / "presets" / "source.py"  # 2
    before(presets, SOURCE.format("features") + "(", IMPORT)
    before(presets, '    "dhf",\n', '    "damped",\n')
    presets.write_text(presets.read_text() + PRESET)
    before(
        attacks / "presets" / "published.py", '    "dhf": (', '    "damped": ("Damped", ("author2031damped",)),\n'
    )  # 3
    (attacks / "papers.bib").write_text((attacks / "papers.bib").read_text() + PAPER)
    file = (ROOT / "configs" / "attacks" / "mi_fgsm.yaml").read_text()  # 4
    file = file.replace("attacks.mi_fgsm", "attacks.damped").replace("MI-FGSM", "Damped")
    assert file.count("random_start: false") == 1
    file = file.replace("random_start: false", "random_start: true")
    (tmp_path / "configs" / "attacks" / "damped.yaml").write_text(file)
    before(attacks / "README.md", "| `transegpgd_misclassified` | | |", ROW)  # 5
    page, later = attacks / "README.md", "Not in it yet: "
    if later in page.read_text():
        page.write_text(page.read_text().replace(later, f"{later}`damped`, "))
    else:
        before(page, "<!-- /presets-table -->", f"\n{later}`damped`.\n")
    return tmp_path


NAMED = ("damped", "Damped")
LISTS = ("in_the_list", "clean_images", "rows_of", "citations", "table_of_figures", "this_file", "names_of")
"""Tests of the new attack, and tests that go through lists of all attacks."""


def test_five_things_are_enough(copy):
    files = [f"tests/attacks/test_{name}.py" for name in ("completeness", "contract")]
    options = ["-n", "0", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", "-k"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, " or ".join([*NAMED, *LISTS]), *files],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20
