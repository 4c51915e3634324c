"""Configuration files: those of the user, and those that come with the package, found from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CONFIGS = next((path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()), Path("configs"))
"""The configuration files that come with the package: inside of it where it is installed, beside it in a checkout."""
_HERE = (Path(),)


def attack_names() -> list[str]:
    """The attacks that come with the package, each a file of `configs/attacks`.

    Example:
        >>> {"pgd", "segpgd", "transegpgd"} <= set(attack_names())
        True
    """
    return sorted(file.stem for file in (CONFIGS / "attacks").glob("*.yaml"))


def find_config(file: str, folders: Sequence[Path] = _HERE) -> Path | None:
    """The configuration file that a path such as `configs/ensemble.yaml` means; None where there is none.

    Args:
        file: as the user wrote it.
        folders: searched first, in this order; the default is the working directory. The files of the package, whose
            paths begin with `configs/`, come last.

    Example:
        >>> find_config("configs/attacks/pgd.yaml", [Path("/nowhere")]) == CONFIGS / "attacks" / "pgd.yaml"
        True
        >>> find_config("configs/attacks/pdg.yaml")
    """
    places = [folder / file for folder in folders]
    if Path(file).parts[:1] == ("configs",):
        places.append(CONFIGS.joinpath(*Path(file).parts[1:]))
    return next((place for place in places if _is_file(place)), None)


def find_attack(attack: str, folders: Sequence[Path] = _HERE) -> Path | None:
    """The file of an attack, by its path or by its name in any case; None where there is none.

    A name always means the package's attack: a folder of yours cannot change what `pgd` is.

    Args:
        attack: as the user wrote it, such as `configs/attacks/pgd.yaml` or `pgd`.
        folders: as of `find_config`.

    Example:
        >>> find_attack("PGD") == find_attack("pgd") == CONFIGS / "attacks" / "pgd.yaml"
        True
        >>> find_attack("pdg")
    """
    name = attack.lower()
    return CONFIGS / "attacks" / f"{name}.yaml" if name in attack_names() else find_config(attack, folders)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # text that is no path, such as a configuration in one line: too long, or with \0
        return False
