"""An attack is a class, a preset with its papers, a file and a row of the README: none may be missing or wrong."""

import ast
import inspect
import re
import typing
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lightning_attack import attacks
from lightning_attack.attacks import PRESETS
from lightning_attack.attacks.papers import PAPERS
from lightning_attack.attacks.presets.published import PUBLISHED
from lightning_attack.cli import CONFIGS, PARTS
from lightning_attack.models import Ensemble
from lightning_attack.predict.cost import count_passes
from tests.attacks.toys import rich
from tests.readme.presets_table import CLEAN, LEFT_OUT, PRESETS_SHOWN, ROOT

README = (Path(inspect.getfile(attacks)).parent / "README.md").read_text()
FILES = sorted((CONFIGS / "attacks").glob("*.yaml"))
KINDS = (
    attacks.Objective, attacks.InputTransform, attacks.GradientTransform, attacks.SourceTransform, attacks.Attack,
    attacks.Norm,
)  # fmt: skip
TABLE = "lightning_attack/attacks/README.md, the table of section Presets"
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in README.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 6 and cells[0].startswith("`")
}
"""Rows of the table of attacks: year, source, parts, backward passes, what it does."""


def concrete_classes(kind):
    """All classes of a kind that the package defines and that can be made."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("lightning_attack."):
            if not inspect.isabstract(child):
                yield child
            yield from concrete_classes(child)


CLASSES = sorted({child for kind in KINDS for child in concrete_classes(kind)}, key=lambda child: child.__name__)


@pytest.mark.parametrize("part", CLASSES, ids=lambda part: part.__name__)
def test_every_class_is_offered_and_in_the_readme(part):
    name = part.__name__
    where = "import it in lightning_attack/attacks/__init__.py, and name it in `__all__` there"
    assert name in attacks.__all__, where
    assert getattr(attacks, name, None) is part, where
    assert any(part in known for known in PARTS.values()), "error messages do not know it"
    assert f"`{name}`" in README, f"{TABLE}: no row has `{name}` among its parts"


def test_every_preset_of_every_file_is_in_the_list():
    folder = Path(inspect.getfile(attacks)).parent / "presets"
    defined = {
        node.name
        for file in folder.glob("*.py")
        if file.name not in ("settings.py", "published.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert defined == {preset.__name__ for preset in PRESETS}


def has_formula(thing):
    """Whether a docstring has a block that stands further in, with a blank line before it."""
    return re.search(r"\n\n {4,}\S", inspect.getdoc(thing) or "") is not None


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_every_preset_says_where_it_comes_from_and_what_it_computes(preset):
    """A source, if it is our own with the papers of its parts, and a formula here or in a part that is named here."""
    text = inspect.getdoc(preset)
    source = text.partition("Source:")[2]
    assert re.search(r"20\d\d|arXiv", source), "no source"
    assert source.startswith(" ours") == (not row(preset.__name__)[1]), "a row has a source where it is not our own"
    named = [part for part in CLASSES if f"`{part.__name__}`" in text]
    assert any(map(has_formula, [preset, *named])), "no formula"


def file_of(preset):
    return CONFIGS / "attacks" / f"{preset.__name__}.yaml"


def settings_of(preset):
    """The settings in a preset's file; none if that is missing, which a test below says."""
    return yaml.safe_load(file_of(preset).read_text())["init_args"] if file_of(preset).exists() else {}


def row(name):
    """An attack's row of the README."""
    assert name in ROWS, f"{TABLE}: there is no row of six cells that begins with `{name}`"
    return ROWS[name]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_every_preset_has_a_file_that_says_all_its_settings(preset):
    file = f"configs/attacks/{preset.__name__}.yaml"
    assert file_of(preset).exists(), f"write {file} with all settings of the preset, such as configs/attacks/sgm.yaml"
    config = yaml.safe_load(file_of(preset).read_text())
    assert config["class_path"] == f"lightning_attack.attacks.{preset.__name__}"
    # What an attack file leaves out would be kept from the attack that it replaces.
    parameters = inspect.signature(preset).parameters
    settings = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    if "settings" in parameters:
        (keywords,) = typing.get_args(typing.get_type_hints(preset)["settings"])
        settings |= set(keywords.__annotations__)
    assert set(config["init_args"]) == settings - {"name"}, f"{file} has other settings than the preset"
    published = "lightning_attack/attacks/presets/published.py says what papers call it, and which papers it is from"
    assert preset.__name__ in PUBLISHED, f"{published}: a line is missing"
    assert config["init_args"]["display_name"] == preset().display_name != preset.__name__, published


@pytest.mark.parametrize("preset", [one for one in PRESETS if "eps" in settings_of(one)], ids=lambda one: one.__name__)
def test_a_file_with_another_radius_is_the_preset_with_it(preset):
    """Lengths that follow the radius are null in the file; a number there would stay what it is at 8/255."""
    given = {key: value for key, value in settings_of(preset).items() if not isinstance(value, dict)}
    assert preset(**given | {"eps": "2/255"}).settings() == preset(eps="2/255").settings()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_has_a_row_with_its_parts(file):
    config = yaml.safe_load(file.read_text())
    *_, parts_shown, _, about = row(file.stem)
    parts = re.findall(r"`(\w+)`", parts_shown)
    assert about
    presets = {preset.__name__: preset for preset in PRESETS}
    name = config["class_path"].rpartition(".")[2]
    attack = presets[name]() if name in presets else getattr(attacks, name)()
    assert parts == list(dict.fromkeys(used(attack.settings())))


def used(settings):
    """The classes in an attack's settings, but for the common loop, the norm and the switch."""
    if isinstance(settings, dict):
        if settings.get("class") not in {None, "IterativeAttack", "Linf", "Switch"}:
            yield settings["class"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from used(value)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 1))

    def forward(self, x):
        return self.layers(x)


MORE_FORWARD = [
    name
    for name in re.findall(r"`(\w+)`", re.search(r"Each comes with a forward pass\.(.*?)\n\n", README, re.DOTALL)[1])
    if name != "attacks"
]
"""Attacks that take more forward than backward passes, as the text above the table says."""
OTHER_PASSES = {"gi_fgsm"} | {
    preset.__name__ for preset in PRESETS if preset().needs_members or getattr(preset(), "steps", None) != 20
}
"""Attacks of another number of steps than 20, or of members."""


@pytest.mark.parametrize("name", sorted(OTHER_PASSES))
def test_rows_say_what_an_attack_costs(name):
    """The rows of the other attacks are those of the command `attacks`, see tests/cli/test_checks.py."""
    torch.manual_seed(0)
    attack = getattr(attacks, name)()
    model = Ensemble([Small(), Small()]) if attack.needs_members else rich(attack, Small())
    with count_passes(model) as passes:
        attack(model, torch.rand(2, 3, 4, 4), torch.randint(5, (2, 4, 4)), [1, 2])
    assert passes["backward"] / 2 == int(row(name)[3])


def test_rows_of_published_attacks_have_year_and_source():
    for preset in PRESETS:
        year, source = row(preset.__name__)[:2]
        assert bool(year) == bool(source), preset.__name__
        for number in re.findall(r"\[(\d{4}\.\d{5})\]", source):
            assert number in inspect.getdoc(preset), f"{preset.__name__}: the row's source is not the docstring's"


def test_citations_are_the_papers_of_the_rows():
    assert {key for _, keys in PUBLISHED.values() for key in keys} == set(PAPERS)
    for preset in PRESETS:
        cited = preset().citations
        numbers = re.findall(r"\[(\d{4}\.\d{5})\]", row(preset.__name__)[1])
        assert set(re.findall(r"\d{4}\.\d{5}", "".join(cited.values()))) >= {*numbers}, preset.__name__
        assert cited, preset.__name__
    for key, entry in PAPERS.items():
        year, braces = re.search(r"year = \{(\d{4})\}", entry)[1], entry.count("{") - entry.count("}")
        assert year in key
        assert braces == 0
        assert "author = {" in entry
        assert "title = {" in entry


def test_attacks_that_show_the_source_the_clean_images_are_named():
    """Attacks of more forward than backward passes; the command `attacks` finds the same ones, see tests/cli."""
    below = re.search(r"Forward passes without a backward pass.*?`adaea`", README, re.DOTALL)[0]
    assert sorted(MORE_FORWARD) == sorted([*CLEAN, "adaea"]) == sorted(re.findall(r"`(\w+)`", below))


def test_the_table_of_figures_has_all_presets():
    """Those that came after it was made are named below it."""
    shown = re.search(r"<!-- presets-table -->(.*)<!-- /presets-table -->", README, re.DOTALL)[1]
    later = re.findall(r"`(\w+)`", (re.search(r"Not in it yet: ([^.]*)\.", shown) or ["", ""])[1])
    rows = re.findall(r"^\| `(\w+)` \|", shown, re.MULTILINE)
    files = {file.stem for file in (ROOT / "configs" / "attacks").glob("*.yaml")}
    assert {*PRESETS_SHOWN} == files - LEFT_OUT
    missing = {*PRESETS_SHOWN} - {*rows, *later}
    where = "attacks/README.md, All presets on real photos: write above <!-- /presets-table -->"
    assert not missing, f"{where}: Not in it yet: {', '.join(f'`{name}`' for name in sorted(missing))}."
    assert sorted([*rows, *later]) == sorted(PRESETS_SHOWN)
    compared = 0
    for group in re.split(r"^\| \*\*.*", shown, flags=re.MULTILINE):
        transfer = [float(row) for row in re.findall(r"^\| `[^|]*\|[^|]*\|[^|]*\| ([\d.]+)", group, re.MULTILINE)]
        assert transfer == sorted(transfer)
        compared += len(transfer)
    assert compared == len(re.findall(r"^\| `", shown, re.MULTILINE))


def test_every_configuration_file_is_in_the_readme():
    readme = CONFIGS / "README.md"
    rows = set(re.findall(r"^\| `(configs/[^`]+)` \| \S", readme.read_text(), re.MULTILINE))
    files = {file.relative_to(CONFIGS.parent).as_posix() for file in CONFIGS.rglob("*") if file.is_file()}
    files.discard("configs/README.md")
    attack_files = {name for name in files if name.startswith("configs/attacks/")}  # in the table of attacks
    assert rows == files - attack_files | {"configs/attacks/*.yaml"}
