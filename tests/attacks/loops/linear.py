"""Linear networks, whose smallest adversarial change is known without an attack."""

import torch
from torch import nn


def linear(weights, bias):
    model = nn.Conv2d(3, len(weights), 1).double()
    model.weight.data = torch.tensor(weights, dtype=torch.float64)[:, :, None, None]
    model.bias.data = torch.tensor(bias, dtype=torch.float64)
    return model


def needed(model, images, labels, threshold, targeted=False):
    """Smallest L-inf norm for each image by halving the radius: with it every value goes where it helps most."""
    weights, results = model.weight[:, :, 0, 0].detach(), []
    for image, label in zip(images, labels, strict=True):
        known = label != 255
        x, y = image[:, known].T, label[known]
        low, high = 0.0, 1.0
        for _ in range(50):
            eps, won = (low + high) / 2, torch.zeros(len(y), dtype=torch.bool)
            for other in range(len(weights)):
                goal = (y if targeted else torch.full_like(y, other), torch.full_like(y, other) if targeted else y)
                pull = weights[goal[0]] - weights[goal[1]]
                moved = torch.clip(x + eps * torch.sign(pull), 0, 1)
                logits = moved @ weights.T + model.bias.detach()
                wins = logits.argmax(1)
                won |= (wins == y) if targeted else (wins != y)
            enough = float(won.double().mean()) >= threshold - 1e-9
            low, high = (low, eps) if enough else (eps, high)
        results.append(high)
    return torch.tensor(results, dtype=torch.float64)


# All classes tie at gray.
TWO = linear([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], [-0.5, 0.5])
# All pairs of classes are equally far apart, so that the class with the nearest logit is the nearest in L-inf too.
THREE = linear([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0])


def linear_scene(model, targeted):
    images = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1 + 0.45
    # Black in one colour, which the attack would like to lower: the others must go further.
    images[1, :, :2] = torch.tensor([0.22, 0.01, 0.22]).view(3, 1, 1)
    labels = model(images).argmax(1) if not targeted else (model(images).argmax(1) + 1) % model.out_channels
    labels[:, 0, 3] = 255
    return images, labels
