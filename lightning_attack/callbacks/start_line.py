"""What a run says when it starts: the attack, the networks, the photos, the device and the folder."""

from __future__ import annotations

from math import isfinite

from lightning.pytorch import Trainer

from lightning_attack.callbacks.pace import batch_size, photos_of_run
from lightning_attack.predict.device import device_name
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.settings import as_json, flat


def start_line(trainer: Trainer, module: AttackModule, folder: str | None) -> str:
    """One line: `pgd (eps 8/255) attacks fpn, targets: unet; 16 photos in batches of 8 on cpu; folder: results/...`."""
    place = f"; folder: {folder}" if folder else ""
    return f"{network_words(module)}; {photo_words(trainer)} on {device_words(trainer)}{place}"


def network_words(module: AttackModule) -> str:
    """`pgd (eps 8/255) attacks fpn, targets: unet`."""
    attack = module.attack.name + (f" ({budget})" if (budget := budget_words(module.attack.settings())) else "")
    targets = [name for name in module.target_names if name != module.source_name]
    return f"{attack} attacks {module.source_name}" + (f", targets: {', '.join(targets)}" if targets else "")


def going_on(trainer: Trainer) -> str | None:
    """`773 of 1000 photos are done, going on`; None for a run that begins."""
    total, done = photos_of_run(trainer)
    if not done:
        return None
    return f"{done} of {total:.0f} photos are done, " + ("going on" if done < total else "all of them")


def photo_words(trainer: Trainer) -> str:
    """`1000 photos in batches of 8`."""
    total, _ = photos_of_run(trainer)
    batch = batch_size(trainer)
    count = f"{total:.0f} photo{'s' * (total != 1)}" if isfinite(total) else "photos"
    return count + (f" in batches of {batch}" if batch else "")


def device_words(trainer: Trainer) -> str:
    """The devices of all processes."""
    return device_name(trainer.strategy.root_device, trainer.world_size)


def budget_words(attack: object) -> str:
    """The radius of an attack, or of all its parts, from its settings; empty where it has none.

    Example:
        >>> from lightning_attack.attacks import NoAttack, pgd
        >>> [budget_words(attack.settings()) for attack in (pgd(eps="4/255"), pgd(eps=1.5, norm="l2"), NoAttack())]
        ['eps 4/255', 'eps 1.5 in L2', '']
        >>> budget_words({"norm": {"class": "MyNorm", "eps": 0.5}})
        'eps 0.5 in MyNorm'
    """
    settings = dict(flat(as_json({"attack": attack})))
    found: dict[str, None] = {}
    for key, eps in settings.items():
        if key.endswith("norm.eps") and isinstance(eps, float | int):
            norm = settings.get(f"{key.removesuffix('eps')}class")
            found[f"{eps * 255:.4g}/255" if norm == "Linf" else f"{eps:.4g} in {norm}"] = None
    return f"eps {' and '.join(found)}" if found else ""
