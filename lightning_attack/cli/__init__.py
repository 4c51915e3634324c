"""The command line: the only place that knows all parts. Each command is a file of its own, imported when it is run.

.. include:: README.md
"""

from lightning_attack.cli.main import main  # eagerly: it imports nothing heavy, and the module has the same name
from lightning_attack.common.lazy import lazy_names

__all__ = ["CONFIGS", "PARTS", "AttackCLI", "TrainCLI", "main"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AttackCLI": "lightning_attack.cli.predict",
        "CONFIGS": "lightning_attack.common.configs",
        "PARTS": "lightning_attack.cli.parts",
        "TrainCLI": "lightning_attack.cli.fit",
    },
)
