"""`Peer`: an attack of the package torchattacks, run on the networks and data of this project."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attack.attacks.base import Attack, Model, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.loops.gradient import check_labels
from lightning_attack.attacks.wrappers.global_seed import global_seed
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.pixels import parse_pixels

PACKAGE = "torchattacks"
INSTALL = f"pip install --no-deps {PACKAGE}==3.5.1"
CROSS_ENTROPY_IGNORES = -100


class Peer(Attack):
    """Any attack of torchattacks, to compare with or to check against.

    Source: H. Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks", 2020, arXiv 2010.01950; the package is
    optional and loaded here only.

    These attacks were written for one label per image. Those whose loss is torch's cross-entropy (PGD, FGSM, BIM,
    MIFGSM, NIFGSM, VMIFGSM, TPGD, ...) take label maps as well, and ignored pixels are told to them by the label -100,
    which that loss leaves out; others (APGD, CW, Square, FAB, Pixle, SPSA, Jitter) fail. The
    loss is the mean over the image; DIFGSM and TIFGSM move images without moving labels and want square ones; TIFGSM
    and PIFGSM work in float32 only.

    Images go one by one, and all global random generators are set from the image's own seed and put back afterwards:
    the result does not depend on the batch. Outside of the region the network is shown the clean image, so that no
    gradient comes from there. Values outside of [0, 1] are clipped; that the budget is kept is left to torchattacks.
    Nothing is logged.

    Args:
        attack: `torchattacks.` and the name of a class, such as `torchattacks.PGD`.
        settings: arguments of the class but the model; strings such as `8/255` become numbers.
        name: name in tables and folders; None = the class in lower case, such as `torchattacks_pgd`.

    Raises:
        ValueError: the package is missing, has no such attack, or the attack refuses the settings; at a call that is
            targeted, if it has no targeted mode.

    Example:
        >>> Peer("torchattacks.PGD", {"eps": "8/255", "steps": 3}).name          # doctest: +SKIP
        'torchattacks_pgd'
    """

    def __init__(
        self,
        attack: str = "torchattacks.PGD",
        settings: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name or attack.lower().replace(".", "_"))
        self.attack = attack
        self._kind = _find(attack)
        self._settings = {key: _number(key, value) for key, value in (settings or {}).items()}
        self._modes = _build(self._kind, attack, _Adapter(), self._settings).supported_mode

    @property
    def targetable(self) -> bool:
        return "targeted" in self._modes

    def settings(self) -> object:
        return {"class": "Peer", "name": self.name, "attack": self.attack, "settings": dict(self._settings)}

    def perturb(self, problem: Problem) -> Tensor:
        with torch.no_grad():
            check_labels(problem.labels, problem.predict(problem.images).logits.shape[1])
        results = [self._attack_image(problem, number) for number in range(len(problem.images))]
        return torch.cat(results)

    def _attack_image(self, problem: Problem, number: int) -> Tensor:
        """The attack on one image of the batch, (1, 3, H, W)."""
        this = slice(number, number + 1)
        image, labels = problem.images[this], problem.labels[this]
        if bool((labels == IGNORE_INDEX).all()):
            return image
        region = None if problem.region is None else problem.region[this]
        shown = _Adapter(problem.model, image, region)
        with global_seed(problem.draws.seeds[number], image.device):
            peer = _build(self._kind, self.attack, shown, self._settings)
            if problem.targeted:
                peer.set_mode_targeted_by_label(quiet=True)
            labels = labels.masked_fill(labels == IGNORE_INDEX, CROSS_ENTROPY_IGNORES)
            try:
                result = peer(image.clone(), labels)
            except (IndexError, RuntimeError, TypeError, ValueError) as error:
                raise AttackError(f"{self.attack} fails on label maps ({type(error).__name__}: {error})") from error
        if not isinstance(result, Tensor) or result.shape != image.shape:
            raise AttackError(f"{self.attack} returned no image of the shape {tuple(image.shape)}")
        result = result.detach().to(image).clamp(0, 1)
        return result if region is None else torch.where(region, result, image)


class _Adapter(nn.Module):
    """A model as torchattacks wants one: a module with a parameter, from which it reads the device.

    The model is not a submodule: torchattacks calls `eval()`, which exported programs refuse, and the model is in that
    mode anyway.
    """

    def __init__(self, model: Model | None = None, image: Tensor | None = None, region: Tensor | None = None) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0, device=None if image is None else image.device), requires_grad=False)
        self.eval()
        self.hidden = (model, image, region)

    def forward(self, images: Tensor) -> Tensor:
        model, image, region = self.hidden
        assert model is not None
        assert image is not None
        return model(images if region is None else torch.where(region, images, image))


def _find(attack: str) -> type:
    """The class of torchattacks with this name."""
    package, _, kind = attack.rpartition(".")
    if package != PACKAGE:
        raise ValueError(f"attack='{attack}': must be {PACKAGE}. and the name of a class, such as {PACKAGE}.PGD")
    try:
        module = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise ValueError(f"attack='{attack}': {PACKAGE} cannot be imported ({error}); {INSTALL}") from error
    base = importlib.import_module(f"{PACKAGE}.attack").Attack
    known = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and "model" in inspect.signature(value).parameters
    }
    if kind not in known:
        close = {name.lower(): name for name in known}
        near = [close[name] for name in get_close_matches(kind.lower(), close, n=3, cutoff=0)]
        raise ValueError(f"attack='{attack}': {PACKAGE} has no such attack; the nearest are {', '.join(near)}")
    return known[kind]


def _build(kind: type, attack: str, model: nn.Module, settings: Mapping[str, Any]) -> Any:
    """The attack of torchattacks, or an error that names the settings it takes."""
    signature = inspect.signature(kind)
    try:
        if "model" in settings:
            raise TypeError("the model is given by the run")
        signature.bind(model, **settings)
    except TypeError as error:
        allowed = ", ".join(name for name in signature.parameters if name != "model")
        raise ValueError(f"{attack}: {error}; settings are {allowed}") from error
    try:
        return kind(model, **settings)
    except Exception as error:
        raise ValueError(f"{attack} refuses its settings {dict(settings)}: {error}") from error


def _number(name: str, value: Any) -> Any:
    """Fractions such as `8/255` as numbers, everything else unchanged."""
    return parse_pixels(value, name) if isinstance(value, str) and "/" in value else value
