"""Former import paths work for one more version, and say which is the new one."""

import subprocess
import sys
from importlib import import_module

import pytest

from lightning_attack.common.moved import MODULES, NAMES


@pytest.mark.parametrize("old", [name for name in MODULES if name != "comparison"])
def test_old_module_hands_on_the_new_one(old, monkeypatch):
    new = import_module(f"lightning_attack.{MODULES[old]}")
    monkeypatch.delitem(sys.modules, f"lightning_attack.{old}", raising=False)
    with pytest.warns(FutureWarning, match=f"lightning_attack.{old} is now lightning_attack.{MODULES[old]}; "):
        moved = import_module(f"lightning_attack.{old}")
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__]
    assert own
    assert all(getattr(moved, name) is getattr(new, name) for name in own)


def test_presets_keep_names_that_old_modules_had():
    """`attacks.apgd` is a function, before and after somebody imports the module that was called so."""
    code = """
import warnings; warnings.simplefilter("ignore")
import lightning_attack.attacks as attacks
from importlib import import_module
for name in ("apgd", "svre", "dag", "alma_prox", "transegpgd"):
    before = getattr(attacks, name)
    assert callable(before) and import_module(f"lightning_attack.attacks.{name}") is not before
    assert getattr(attacks, name) is before, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in NAMES for name in NAMES[package]])
def test_names_that_a_package_gave_away(package, name):
    with pytest.warns(FutureWarning, match=f"{package}.{name} is now lightning_attack.{NAMES[package][name]}.{name}; "):
        moved = getattr(import_module(f"lightning_attack.{package}"), name)
    assert moved is getattr(import_module(f"lightning_attack.{NAMES[package][name]}"), name)


def test_names_that_never_were():
    with pytest.raises(ImportError, match="no_such_thing"):
        import_module("lightning_attack.no_such_thing")
    with pytest.raises(AttributeError, match="NoSuchThing"):
        import_module("lightning_attack.callbacks").NoSuchThing  # noqa: B018
