"""Attacks by the names of their papers, with the budget of this project: L-inf 8/255, steps of 0.01, 20 steps.

One budget for all makes a fair comparison; each docstring says what its paper used. All take the keywords of `Settings`
besides their own (attacks with loops of their own say which) and raise `ValueError` where a value is out of range. What
they return is called with `(model, images, labels)`.
"""

from lightning_attack.attacks.presets import (
    combined,
    ensembles,
    features,
    gradients,
    own,
    paths,
    source,
    steps,
    views,
    white_box,
)
from lightning_attack.attacks.presets import transegpgd as _transegpgd
from lightning_attack.attacks.presets.combined import *  # noqa: F403
from lightning_attack.attacks.presets.ensembles import *  # noqa: F403
from lightning_attack.attacks.presets.features import *  # noqa: F403
from lightning_attack.attacks.presets.gradients import *  # noqa: F403
from lightning_attack.attacks.presets.own import *  # noqa: F403
from lightning_attack.attacks.presets.paths import *  # noqa: F403
from lightning_attack.attacks.presets.source import *  # noqa: F403
from lightning_attack.attacks.presets.steps import *  # noqa: F403
from lightning_attack.attacks.presets.transegpgd import *  # noqa: F403
from lightning_attack.attacks.presets.views import *  # noqa: F403
from lightning_attack.attacks.presets.white_box import *  # noqa: F403

__all__ = [
    *white_box.__all__,
    *features.__all__,
    *gradients.__all__,
    *steps.__all__,
    *views.__all__,
    *paths.__all__,
    *combined.__all__,
    *source.__all__,
    *_transegpgd.__all__,
    *own.__all__,
    *ensembles.__all__,
]

PRESETS = tuple(globals()[name] for name in __all__)
"""The attacks named after papers, as functions; tests, configurations and tables walk this list."""
