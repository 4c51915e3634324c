"""Small models and scenes for the tests of the attacks."""

import torch
from torch import Tensor, nn

CLASSES = 5
PIXELS = 8 / 255
FEW = {
    "admix": {"copies": 2, "scales": 2},
    "emi_fgsm": {"samples": 3},
    "pgn": {"samples": 2},
    "ssa": {"copies": 2},
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
