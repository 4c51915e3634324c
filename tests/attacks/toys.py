"""Small models and scenes for the tests of the attacks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.objectives.base import CrossEntropy

CLASSES = 5
PIXELS = 8 / 255
STEPS, STEP = 6, 0.01
BALL = Linf(PIXELS)
FEW = {
    "bfa": {"samples": 2},
    "fia": {"samples": 3},
    "naa": {"samples": 3},
    "admix": {"copies": 2, "scales": 2},
    "cfm": {"prob": 0.5},
    "aes": {"runs": 2},
    "anda": {"grid": 2},
    "dem": {"rates": [1.3]},
    "dta": {"inner_steps": 2},
    "emi_fgsm": {"samples": 3},
    "fgsra": {"samples": 1},
    "gi_fgsm": {"pre_steps": 1},
    "gra": {"samples": 1},
    "mask_block": {"grid": 2},
    "mig": {"points": 2},
    "mumodig": {"copies": 1},
    "taig": {"points": 2},
    "rap": {"inner_steps": 1},
    "smi_fgrm": {"samples": 1},
    "mef": {"samples": 2},
    "pgn": {"samples": 2},
    "ssa": {"copies": 2},
    "us_mm": {"scales": 2, "masks": 1},
    "transegpgd_vmi": {"samples": 2},
    "vmi_fgsm": {"samples": 2},
    "vni_fgsm": {"samples": 2},
}
"""Settings of presets with many views or samples that make them quick."""


def curved(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """A network whose gradient turns within the budget, so that different attacks end at different points."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, CLASSES, 3, padding=1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)
    return model.to(dtype).eval()


class Rich(nn.Module):
    """A network behind another that has what source transforms change, and leaves the other's input about as it was.

    A residual connection with a ReLU, maximum pooling, attention among the colours, and features a quarter as large.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        weights = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64).view(3, 3, 1, 1)
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        weights, size = self.weights.to(x.dtype), x.shape[-2:]
        small = F.conv2d(F.adaptive_avg_pool2d(x, [max(1, side // 4) for side in size]), weights)
        x = x + 0.5 * F.relu(F.conv2d(F.relu(F.conv2d(x, weights)), weights))
        x = x + 0.1 * F.max_pool2d(x, 3, stride=1, padding=1)
        colours = x.flatten(2) - 0.5
        attention = (colours @ colours.mT / colours.shape[2]).softmax(-1)
        x = x + 0.1 * (attention @ colours).view_as(x)
        return self.model(x + 0.1 * F.interpolate(small, size))


_RICH: dict[tuple[str, bytes], Rich] = {}
"""Graphs are kept with their network, and take a moment to make."""


def rich(attack, model: nn.Module) -> nn.Module:
    """The model, or one with what the attack's source transforms change; for equal `curved` models the same one."""
    if not getattr(attack, "source_transforms", None):
        return model
    if type(model) is not nn.Sequential:
        return Rich(model)
    weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
    return _RICH.setdefault((repr(model), weights), Rich(model))


def scene(
    batch: int = 2,
    height: int = 16,
    width: int = 16,
    ignored: float = 0.2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Random images and labels, of which a share is ignored."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(CLASSES, (batch, height, width), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return images, labels


def half_right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The labels, but the model's own prediction on the left half: there it has something to lose."""
    with torch.no_grad():
        predicted = model(images).argmax(1)
    left = torch.arange(labels.shape[-1]) < labels.shape[-1] // 2
    return torch.where(left & (labels != 255), predicted, labels)


def share_of_differences(first: Tensor, second: Tensor) -> float:
    return float((first != second).double().mean())


class Together(nn.Module):
    """An ensemble: the mean of its members' logits."""

    by = "logits"

    def __init__(self, *members, by="logits"):
        super().__init__()
        self.members, self.weights, self.by = nn.ModuleList(members), [1 / len(members)] * len(members), by

    def forward(self, x):
        return sum(weight * member(x) for member, weight in zip(self.members, self.weights, strict=True))


def pgd(steps=STEPS, objective=None, norm=BALL, random_start=False, name="pgd", step_size=STEP):
    return IterativeAttack(objective or CrossEntropy(), norm, steps, step_size, random_start, name=name)


def two():
    return Together(curved(seed=0), curved(seed=1))


class Spy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.model(x)


def unfooled(model, x, labels, targeted=False):
    with torch.no_grad():
        right = model(x).argmax(1) == labels
    return ((~right & (labels != 255)) if targeted else right).flatten(1).sum(1)


def control(model, x, labels):
    with torch.no_grad():
        return F.cross_entropy(model(x), labels, ignore_index=255, reduction="none").flatten(1).sum(1)
