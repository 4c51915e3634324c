"""Presets by their bare names, wherever an attack may stand."""

import pytest

from lightning_attack.attacks import Attack
from lightning_attack.cli.parser import Parser, with_paths

BEFORE = ["--model.attack=StartFrom", "--model.attack.file=a.pt"]


@pytest.mark.parametrize(
    "words",
    [
        ["--model.attack=FILE"],
        [*BEFORE, "--model.attack.attack=mi_fgsm"],
        [*BEFORE, "--model.attack.attack", "mi_fgsm"],
        [*BEFORE, "--model.attack.attack.class_path=mi_fgsm", "--model.attack.attack.steps=3"],
        ["--model.attack={class_path: StartFrom, init_args: {file: a.pt, attack: {class_path: mi_fgsm}}}"],
        ["--model.attack={class_path: StartFrom, init_args: {file: a.pt, attack: mi_fgsm}}"],
        ["--model.attack=WorstCase", "--model.attack.attacks=[mi_fgsm, {class_path: pgd}]"],
        ["--model.attack=WorstCase", "--model.attack.attacks+=mi_fgsm"],
    ],
    ids=" ".join,
)
def test_inside_other_attacks(words, tmp_path):
    file = tmp_path / "attack.yaml"
    file.write_text("class_path: StartFrom\ninit_args:\n  file: a.pt\n  attack: {class_path: mi_fgsm}\n")
    parser = Parser()
    parser.add_subclass_arguments(Attack, "model.attack")
    found = parser.parse_args(with_paths([word.replace("FILE", str(file)) for word in words])).model.attack.init_args
    inner = found.attack if "attack" in found else found.attacks[0]
    assert inner.class_path == "lightning_attack.attacks.mi_fgsm"
