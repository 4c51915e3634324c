"""`of_data`: what the data module of a run says."""

from __future__ import annotations

from typing import Any


def of_data(trainer: Any, name: str, default: Any = None) -> Any:
    """An attribute of the data module of a `Trainer`, by its name.

    Args:
        trainer: a `Trainer`; where it got a `DataLoader`, it has no data module.
        name: of the attribute.
        default: what to return where there is no data module, or one of the user's without this attribute.

    Example:
        >>> from types import SimpleNamespace
        >>> of_data(SimpleNamespace(datamodule=SimpleNamespace(classes=("cat",))), "classes")
        ('cat',)
        >>> of_data(SimpleNamespace(datamodule=None), "classes", ())
        ()
    """
    return getattr(getattr(trainer, "datamodule", None), name, default)
