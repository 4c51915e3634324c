"""The plan of the house: who may import whom. What is not listed is refused."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

OWN = "lightning_attack"
PACKAGE = Path(__file__).parents[1] / OWN
TORCH, LIGHTNING = {"torch"}, {"lightning", "torch", "torchmetrics"}
# Of ours: rooms, or single modules of them; of others: libraries. The standard library is for all.
FLOORS = {
    "common": ({}, set()),
    "engine": ({"common"}, TORCH),
    "attacks": ({"engine", "common"}, TORCH),
    "metrics": ({"common"}, {"torch", "torchmetrics", "numpy", "scipy"}),
    "models": (
        {"engine", "common"},
        {"torch", "torchvision", "segmentation_models_pytorch", "timm", "transformers", "huggingface_hub",
         "safetensors", "jsonargparse", "yaml", "numpy", "PIL"},
    ),
    "data": ({"common"}, {"torch", "torchvision", "numpy", "scipy", "PIL", "lightning"}),
    "pictures": ({"common"}, {"torch", "numpy", "PIL"}),
    "runs": ({"metrics.iou", "metrics.flips", "common"}, {"numpy", "filelock", "PIL"}),
    "predict": ({"attacks", "models", "engine", "metrics", "common"}, {"torch", "numpy", "lightning"}),
    "training": (
        {"attacks", "models", "metrics", "pictures", "common"},
        {"torch", "lightning", "segmentation_models_pytorch"},
    ),
    "callbacks": (
        {"predict", "runs", "metrics", "pictures", "common"},
        {"torch", "numpy", "lightning", "rich", "PIL", "tensorboard"},
    ),
    "report": ({"runs", "metrics.iou", "common"}, {"numpy", "plotly", "jinja2", "matplotlib", "rich", "PIL"}),
    "study": ({"runs", "common"}, {"yaml"}),
    "cli": (
        {"attacks", "callbacks", "common", "data", "engine", "metrics", "models", "pictures", "predict", "report",
         "runs", "study", "training"},
        {"lightning", "torch.distributed", "jsonargparse", "rich", "yaml", "segmentation_models_pytorch"},
    ),
}  # fmt: skip
WITHOUT_TORCH = ("common", "runs", "report", "study", "cli")
"""Rooms that load no torch when they are imported (the command line loads it for the commands that need it)."""
WITHOUT_LIGHTNING = (*WITHOUT_TORCH, "engine", "attacks", "models", "pictures")


def floor_of(file, package=PACKAGE):
    place = file.relative_to(package)
    return place.parts[0] if len(place.parts) > 1 else ""


def imported(file):
    """The modules that a file names in its imports, those inside of functions and of `TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not used"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from lightning_attack import data` names a room, `from lightning_attack.data import X` may name a class.
            yield from inner if node.module == OWN else [node.module]


def refused(file, package=PACKAGE):
    """What a file imports and may not."""
    floor = floor_of(file, package)
    if not floor:
        return [name for name in imported(file) if not name.startswith((f"{OWN}.common", f"{OWN}.cli"))]
    if floor not in FLOORS:
        return [f"{file.name} has no floor"]
    ours, others = FLOORS[floor]
    allowed = {f"{OWN}.{room}" for room in (floor, *ours)} | {f"{OWN}.__version__"} | others | {"__future__"}
    foreign = [name for name in imported(file) if name.partition(".")[0] not in sys.stdlib_module_names]
    return [name for name in foreign if not any(f"{name}.".startswith(f"{one}.") for one in allowed)]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_imports_what_its_floor_may(file):
    assert not refused(file)


@pytest.mark.parametrize(
    ("place", "content", "found"),
    [
        ("attacks/planted.py", "from lightning_attack.predict.module import X", "lightning_attack.predict.module"),
        ("attacks/planted.py", "def f():\n    from lightning_attack.predict import module", "lightning_attack.predict"),
        ("attacks/planted.py", "def f():\n    import lightning.pytorch", "lightning.pytorch"),
        ("runs/planted.py", "from lightning_attack.metrics import X", "lightning_attack.metrics"),
        ("runs/planted.py", "from lightning_attack import models", "lightning_attack.models"),
        ("cellar/planted.py", "import os", "planted.py has no floor"),
        ("planted.py", "from lightning_attack.models import X", "lightning_attack.models"),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(place, content, found, tmp_path):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    assert refused(file, tmp_path) == [found]


def test_the_top_holds_nothing_else():
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} <= {"__init__.py", "__main__.py", "py.typed"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == set(FLOORS)


def test_the_rooms_have_no_circle():
    above = {floor: {room.partition(".")[0] for room in ours} for floor, (ours, _) in FLOORS.items()}
    while above:
        ground = {floor for floor, below in above.items() if not below & set(above)}
        assert ground, f"a circle among {sorted(above)}"
        above = {floor: below for floor, below in above.items() if floor not in ground}


FRESH = """
import importlib, os, sys

def load(floors):
    for floor in floors:
        sys.stdout.flush()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0, floor
            continue
        importlib.import_module(f"lightning_attack.{floor}")
        print(floor, *sys.modules, flush=True)
        os._exit(0)

"""
"""A process that loads each floor in a copy of itself, of which none has any of our modules but those of the floor."""


def test_a_fresh_process_loads_what_the_floor_may():
    """What is imported in the end, through others too. Libraries that are no matter are loaded once for many floors."""
    torch = [floor for floor in WITHOUT_LIGHTNING if floor not in WITHOUT_TORCH]
    rest = [floor for floor in FLOORS if floor not in WITHOUT_LIGHTNING]
    code = f"{FRESH}load({WITHOUT_TORCH})\nimport torch\nload({torch})\nimport lightning.pytorch\nload({rest})"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    found = {floor: loaded for floor, *loaded in map(str.split, printed.splitlines())}
    assert found.keys() == FLOORS.keys()
    for floor, loaded in found.items():
        ours, _ = FLOORS[floor]
        below = {floor, *(room.partition(".")[0] for room in ours), "common"}
        for room in list(below):  # and what these rest on
            below |= {one.partition(".")[0] for one in FLOORS[room][0]}
        rooms = {name.split(".")[1] for name in loaded if name.startswith(f"{OWN}.")}
        assert floor in rooms
        assert rooms <= below, floor
        assert floor not in WITHOUT_TORCH or "torch" not in loaded, floor
        assert floor not in WITHOUT_LIGHTNING or "lightning.pytorch" not in loaded, floor


FILES_OF_A_RUN = ("transfer.json", "transfer.csv", "settings.json", "command.txt", "events.out", ".lock", ".stop",
                  ".old_", "version_", "difference (", "difference x")  # fmt: skip
FOLDERS_OF_A_RUN = ("images", "panels", "records", "skipped")
"""Elsewhere these are also names of other things, so they are looked for in paths only."""


def spelled(file):
    """Names that belong to `runs`, in strings of a file that are no docstrings, and in paths that it puts together."""
    tree = ast.parse(file.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield from (name for name in FILES_OF_A_RUN if name in node.value and "__version__" not in node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield from (name for name in FOLDERS_OF_A_RUN if name == node.right.value)


def test_names_of_files_of_a_run_stand_in_one_place():
    """In `runs.names`. Folders that `data` reads are those of data sets."""
    for file in FILES:
        if file != PACKAGE / "runs" / "names.py" and floor_of(file) != "data":
            assert not list(spelled(file)), file


def test_a_name_that_is_spelled_elsewhere_is_found(tmp_path):
    (tmp_path / "planted.py").write_text(
        '"""transfer.json"""\na = f"{b}/transfer.json"\nc = b / "panels"\nd = ["panels"]'
    )
    assert sorted(spelled(tmp_path / "planted.py")) == ["panels", "transfer.json"]


def test_tests_stand_where_the_rooms_are():
    """Each folder of tests is a room, or one of those that belong to none."""
    homes = {path.name for path in (PACKAGE.parent / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert homes <= set(FLOORS) | {"benchmarks", "readme", "gpu"}


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
