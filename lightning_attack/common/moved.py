"""Old import paths, as older configuration files hold them: they work for one more version, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

PACKAGE = "lightning_attack"
_LOOPS = ("alma_prox", "apgd", "dag", "gradient", "iterative", "minimal_norm", "patch_wise", "svre")
_VIEWS = ("affine", "copies", "geometry", "regions", "spectral")
_WRAPPERS = ("peer", "per_window", "until_fooled", "worst_case")
MODULES = {
    "adversarial_training": "training.adversarial_training",
    "attacks.feature_objectives": "attacks.objectives.features",
    "attacks.losses": "attacks.objectives.losses",
    "attacks.masked_losses": "attacks.objectives.masked",
    "attacks.pixels": "common.pixels",
    "attacks.sampling": "attacks.gradient_transforms.sampling",
    "attacks.transegpgd": "attacks.objectives.transegpgd",
    **{f"attacks.{name}": f"attacks.loops.{name}" for name in _LOOPS},
    **{f"attacks.{name}": f"attacks.input_transforms.{name}" for name in _VIEWS},
    **{f"attacks.{name}": f"attacks.wrappers.{name}" for name in _WRAPPERS},
    "callbacks.example_predictions": "training.example_predictions",
    "callbacks.weights_export": "training.weights_export",
    "comparison": "report",
    "flips": "metrics.flips",
    "module": "predict.module",
    "records": "runs.records",
    "step_curve": "predict.step_curve",
    "task": "training.task",
    "windows": "common.windows",
}
"""Former modules whose classes and functions a configuration or a script may name, and where they are now."""
NAMES = {
    "callbacks": {
        "ExamplePredictions": "training",
        "WeightsExport": "training",
    },
}
"""Names that a package has given to another one."""


class MovedModules(MetaPathFinder, Loader):
    """Finds the modules of `MODULES`: stand-ins that hand on the names of the new module.

    Example:
        >>> _ = sys.modules.pop("lightning_attack.windows", None)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     windows = import_module("lightning_attack.windows")
        ...     windows.Windows(6).shape, str(caught[0].message)
        ((6, 6), 'lightning_attack.windows is now lightning_attack.common.windows; please write that')
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A specification for an old name; None for all others."""
        package, _, name = fullname.partition(".")
        return spec_from_loader(fullname, self) if package == PACKAGE and name in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A stand-in for the module."""
        parent, _, name = spec.name.rpartition(".")
        if name in vars(sys.modules[parent]):
            sys.modules[parent].__class__ = _KeepsItsNames
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Have it hand on what the new module holds."""
        name = module.__name__
        new = f"{PACKAGE}.{MODULES[name.partition('.')[2]]}"
        _warn(name, new)
        content = import_module(new)
        module.__doc__ = content.__doc__
        vars(module).update({key: value for key, value in vars(content).items() if not key.startswith("__")})


class _KeepsItsNames(ModuleType):
    """A package whose presets keep names that old modules had too, such as `attacks.apgd`.

    Whoever imports a module, Python writes it into its package under its name, over what was called so.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in vars(self)):
            super().__setattr__(name, value)


def moved_name(package: str, name: str) -> Any:
    """What a package once had under a name, with a warning; for its `__getattr__`.

    Raises:
        AttributeError: it never had.
    """
    home = NAMES.get(package.rpartition(".")[2], {}).get(name)
    if home is None:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    _warn(f"{package}.{name}", f"{PACKAGE}.{home}.{name}")
    return getattr(import_module(f"{PACKAGE}.{home}"), name)


def _warn(old: str, new: str) -> None:
    # Not a DeprecationWarning, which Python shows to nobody who reads a configuration.
    warnings.warn(f"{old} is now {new}; please write that", FutureWarning, stacklevel=3)


def install() -> None:
    """Make Python's import find old names, after all others have not found them."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
