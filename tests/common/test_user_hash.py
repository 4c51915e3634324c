"""Whose code has a hash, and what changes it: a run must not go on with another attack of the same name."""

import importlib
import linecache
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_attack.attacks import CrossEntropy, FunctionAttack, IterativeAttack, Linf, fgsm
from lightning_attack.common.user_hash import user_code
from lightning_attack.models import SegmentationModel, SMPModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.settings import as_json, check_same, write_settings

ROOT = Path(__file__).parents[2]
OWN = """
import torch
from lightning_attack.attacks import CrossEntropy
import own_helpers

LEVELS = 255

class Own(CrossEntropy):
    '''Said.'''

    @property
    def factor(self):
        return own_helpers.SCALE * self.more()

    def more(self):
        return double(1)  # a comment

def double(x):
    return 2 * x

def attack(model, images, labels):
    return (images + double(1) / LEVELS).clamp(0, 1)

def unused():
    return 1

def inner():
    def called():
        return double(3)
    return called
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes and imports the user's modules, with something in them replaced."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(old="", new="", scale=3):
        (tmp_path / "own_helpers.py").write_text(f"SCALE = {scale}\n")
        assert old in OWN
        (tmp_path / "own_code.py").write_text(OWN.replace(old, new))
        for name in ("own_code", "own_helpers"):
            sys.modules.pop(name, None)
        linecache.clearcache()
        return importlib.import_module("own_code")

    yield make
    for name in ("own_code", "own_helpers"):
        sys.modules.pop(name, None)


def test_what_changes_the_hash_of_a_class(own):
    before = user_code([own().Own()])
    assert [*before] == ["own_code.Own"]
    for same in (("# a comment", ""), ("'''Said.'''", "'''Other.'''"), ("    return 1\n", "    return 2\n")):
        assert user_code([own(*same).Own()]) == before
    for other in ({"old": "2 * x", "new": "3 * x"}, {"old": "double(1)  #", "new": "double(2)  #"}, {"scale": 4}):
        assert user_code([own(**other).Own()]) != before


def test_where_user_code_is_found(own):
    code = own()
    held = [
        IterativeAttack(code.Own(), Linf("8/255")),
        FunctionAttack("own_code.attack"),
        {"a": [partial(code.attack, 1)]},
        code.inner(),
    ]
    names = ["own_code.Own", "own_code.attack", "own_code.attack", "own_code.inner.<locals>.called"]
    assert [next(iter(user_code([one]))) for one in held] == names
    assert not user_code([fgsm(), SegmentationModel(nn.Conv2d(3, 2, 1)), CrossEntropy, torch.ones(2)])
    before = user_code([FunctionAttack(code.attack)])
    assert user_code([FunctionAttack(own("LEVELS = 255", "LEVELS = 100").attack)]) != before


DECORATED = """
import functools
import torch
from lightning_attack.attacks import CrossEntropy
import own_helpers

def scaled(by):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return by * own_helpers.SCALE * function(*args)
        return wrapper
    return decorate

def plain(function):
    def wrapper(*args):
        return 1 * function(*args)
    return wrapper

@torch.no_grad()
@scaled(2)
def attack(model, images, labels):
    return images + 3

class Own(CrossEntropy):
    @property
    @scaled(5)
    def factor(self):
        return 6

    @plain
    def other(self):
        return 7
"""
IN_FUNCTION, IN_CLASS = (
    ("by * own", "@scaled(2)", "images + 3"),
    ("by * own", "@scaled(5)", "return 6", "1 *", "return 7"),
)


@pytest.mark.parametrize(
    ("name", "changed"), [*(("attack", one) for one in IN_FUNCTION), *(("Own", one) for one in IN_CLASS)]
)
def test_decorators_and_what_they_are_given(own, monkeypatch, name, changed):
    monkeypatch.setitem(globals(), "OWN", DECORATED)
    before, as_it_was = user_code([getattr(own(), name)]), user_code([getattr(own(), name)])
    other = changed.translate({ord(digit): "9" for digit in "123567"}).replace("by *", "by +")
    after = user_code([getattr(own(changed, other), name)])
    assert before == as_it_was
    assert [*before] == [*after] == [f"own_code.{name}"]
    assert before != after
    assert user_code([getattr(own(scale=4), name)]) != before, "what a decorator names"


VALUES = """
import functools, types
import numpy as np, torch
from lightning_attack.attacks import Linf

SCALE = 1

class Config:
    def __init__(self, scale):
        self.scale, self.me = [scale], self

class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

class Cached:
    @functools.cache
    def called(self):
        return SCALE

def scaled(x, by=1):
    return by * x

@functools.lru_cache
def cached():
    return scaled(SCALE)

def made(by):
    def inner(model, images, labels):
        return by * images
    return inner

def attack(model, images, labels):
    return VALUE and images

VALUE = {value}
"""
CHANGES = [
    ("functools.partial(scaled, by=2)", "by=2", "by=3"),
    ("functools.partial(scaled, by=2)", "by * x", "x"),
    ("cached", "SCALE = 1", "SCALE = 2"),
    ("cached", "by * x", "x"),
    ("Cached()", "SCALE = 1", "SCALE = 2"),
    ("np.array([1, 2])", "1, 2", "1, 3"),
    ("np.array([2, None])", "2, None", "3, None"),
    ("np.float32(2)", "(2)", "(3)"),
    ("{'mean': torch.tensor([1, 2])}", "1, 2", "1, 3"),
    ("Config(2)", "(2)", "(3)"),
    ("Config(torch.ones(2).bfloat16())", "ones", "zeros"),
    ("Config(2).__init__", "(2)", "(3)"),
    ("Slotted(2)", "(2)", "(3)"),
    ("types.SimpleNamespace(scale=2)", "=2", "=3"),
    ("Linf('8/255')", "8/255", "4/255"),
    ("torch.nn.ReLU6(), torch.nn.Conv2d(2, 1, 1, bias=False)", "(2", "(3"),
    ("made(2)", "(2)", "(3)"),
    ("[made(2)]", "(2)", "(3)"),
    ("[scaled]", "by * x", "x"),
]  # fmt: skip


@pytest.fixture
def named(own, tmp_path):
    """Writes and imports the user's module; what its attack names is a value that no function or class shows."""

    def make(value, old="", new=""):
        (tmp_path / "own_code.py").write_text(VALUES.replace("{value}", value).replace(old, new))
        sys.modules.pop("own_code", None)
        linecache.clearcache()
        torch.manual_seed(0)
        return importlib.import_module("own_code")

    return make


@pytest.mark.parametrize(("value", "old", "new"), CHANGES)
def test_what_is_in_the_values_that_code_names_changes_the_hash(value, old, new, named):
    before = user_code([named(value).attack])
    assert user_code([named(value).attack]) == before
    assert user_code([named(value, old, new).attack]) != before


@pytest.mark.parametrize("function", ["functools.partial(scaled, by={})", "made({})"])
def test_what_the_function_of_an_attack_was_made_with_changes_its_hash(function, named):
    hashes = [user_code([named(function.format(by)).VALUE]) for by in (2, 2, 3)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 1


def test_a_run_does_not_go_on_with_other_code(own, tmp_path):
    def module(code):
        return AttackModule(nn.Conv2d(3, 2, 1), FunctionAttack(code.attack))

    torch.manual_seed(0)
    first = module(own())
    before = first.settings()
    write_settings(tmp_path, as_json({"model": before}))
    check_same(tmp_path, {"model": first.settings()})
    torch.manual_seed(0)
    other = module(own("2 * x", "3 * x"))

    def earlier():
        return [{"model": one} for one in other.earlier_settings()]

    with pytest.raises(RunError, match=r"the code of 'own_code\.attack', or what it calls, is not that of before"):
        check_same(tmp_path, {"model": other.settings()}, earlier)
    # A version before did not tell whose code it is.
    write_settings(tmp_path, as_json({"model": before | {"code": before["code"]["attack"]}}))
    with pytest.raises(RunError, match=r"the code of 'own_code\.attack'"):
        check_same(tmp_path, {"model": other.settings()}, earlier)
    write_settings(tmp_path, as_json({"model": before | {"code": other.settings()["code"]["attack"]}}))
    check_same(tmp_path, {"model": other.settings()}, earlier)
    # A run of a version that did not look at code, or one that was told to go on, does.
    write_settings(tmp_path, as_json({"model": {k: v for k, v in before.items() if k != "code"}}))
    check_same(tmp_path, {"model": other.settings()}, earlier)


def test_settings_tell_the_code_of_networks_from_that_of_the_attack(own):
    """`report` asks whether networks are the same."""
    code = own("def unused", "class Net(torch.nn.Conv2d):\n    pass\n\ndef unused")
    mixed = AttackModule(code.Net(3, 2, 1), FunctionAttack(code.attack)).settings()["code"]
    plain = AttackModule(nn.Conv2d(3, 2, 1), FunctionAttack(code.attack)).settings()["code"]
    assert [[*mixed[kind]] for kind in ("attack", "networks")] == [["own_code.attack"], ["own_code.Net"]]
    assert plain == mixed | {"networks": {}}
    assert "code" not in AttackModule(nn.Conv2d(3, 2, 1), fgsm()).settings()


def test_the_hash_is_the_same_in_every_process(tmp_path):
    """Sets come in another order in each process, and objects lie at another address."""
    (tmp_path / "mine.py").write_text(
        "KNOWN = {'road', 'sky', 'car', 'tree'}\nMARKS = [object(), {'b', 'a', 'c'}]\n\n\n"
        "def attack(images):\n    return images if KNOWN and MARKS else None\n"
    )
    program = (
        "from mine import attack; from lightning_attack.common.user_hash import user_code; print(user_code([attack]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert "mine.attack" in said[0]


def test_the_disk_is_asked_once(monkeypatch):
    """Whether a file is the user's, which took longer than small runs: a network has hundreds of parts."""
    network = SMPModel("fpn", "tu-test_resnet", 2)
    user_code([network])
    asked = []
    monkeypatch.setattr(Path, "resolve", lambda path: asked.append(path) or path)
    user_code([network])
    assert not asked
