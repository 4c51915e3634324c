"""How well do adversarial examples made on one segmentation network fool the others?"""

from lightning_attack.common import moved
from lightning_attack.common.lazy import lazy_names

__version__ = "0.1.0"

# Lazily: torch and Lightning take seconds, and `lightning-attack --version` needs neither.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AttackModule": "lightning_attack.predict",
        "SegmentationDataModule": "lightning_attack.data",
        "SegmentationTask": "lightning_attack.training",
        "show": "lightning_attack.report.notebook",
    },
)
moved.install()
