"""Who may import whom. A floor knows those below it and nothing above."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_attack"
OWN = "lightning_attack"
FORBIDDEN = {
    "engine": {"lightning", "torchmetrics", "segmentation_models_pytorch", "torchvision",
               *(f"{OWN}.{floor}" for floor in ("attacks", "callbacks", "cli", "data", "metrics", "models", "module",
                                                "outputs", "report", "task", "windows"))},
    "attacks": {"lightning", "torchmetrics", "segmentation_models_pytorch", "torchvision", "pathlib", "os",
                f"{OWN}.models", f"{OWN}.data", f"{OWN}.metrics", f"{OWN}.module", f"{OWN}.callbacks", f"{OWN}.cli"},
    "models": {"lightning", f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.module", f"{OWN}.callbacks", f"{OWN}.cli"},
    "metrics.py": {f"{OWN}.attacks", f"{OWN}.models", f"{OWN}.data", f"{OWN}.module", f"{OWN}.callbacks"},
    "flips.py": {"lightning", "torch", *(f"{OWN}.{floor}" for floor in ("attacks", "models", "data", "module",
                                                                        "callbacks", "cli"))},
    "data": {f"{OWN}.attacks", f"{OWN}.models", f"{OWN}.module", f"{OWN}.callbacks", f"{OWN}.cli"},
    "module.py": {f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.cli", f"{OWN}.attacks.presets", f"{OWN}.models.smp"},
    "behind.py": {"lightning", "torch", OWN},
    "clean.py": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.models", f"{OWN}.callbacks", f"{OWN}.module", f"{OWN}.cli"},
    "meeting.py": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.module", f"{OWN}.cli"},
    "scoring.py": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.module", f"{OWN}.cli"},
    "target_labels.py": {f"{OWN}.models", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.module", f"{OWN}.cli"},
    "step_curve.py": {f"{OWN}.attacks.presets", f"{OWN}.models", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.module",
                      f"{OWN}.cli"},
    "faults.py": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.module", f"{OWN}.cli"},
    "callbacks": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.cli", f"{OWN}.models.smp"},
    "adversarial_training.py": {f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.cli", f"{OWN}.attacks.presets"},
    "comparison": {"lightning", "torch", "torchmetrics", "segmentation_models_pytorch", "torchvision",
                   *(f"{OWN}.{floor}" for floor in ("attacks", "callbacks", "cli", "data", "models", "module",
                                                    "task"))},
    "task.py": {f"{OWN}.attacks", f"{OWN}.data", f"{OWN}.callbacks", f"{OWN}.cli"},
}  # fmt: skip


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_floor_imports_nothing_from_above(floor):
    files = [PACKAGE / floor] if floor.endswith(".py") else list((PACKAGE / floor).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            for forbidden in FORBIDDEN[floor]:
                assert not f"{name}.".startswith(f"{forbidden}."), f"{file.name} imports {name}"


def test_only_the_wrapper_normalises_and_nothing_chooses_a_device():
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        assert ".cuda(" not in text, file
        assert file.name == "wrapper.py" or "self.mean) / self.std" not in text, file


def test_attacks_never_leave_gradients_behind():
    for file in (PACKAGE / "attacks").rglob("*.py"):
        calls = [node.func.attr for node in ast.walk(ast.parse(file.read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
        assert "backward" not in calls, file
