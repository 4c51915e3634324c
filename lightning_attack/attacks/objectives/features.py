"""Objectives on features: the outputs of named layers of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.objectives.base import Moment, Objective
from lightning_attack.attacks.prediction import Prediction

BLOCK_BYTES = 64 * 2**20
"""Memory for the part of `FSPGD`'s similarity matrix that exists at a time."""


class RPPGD(Objective):
    """RP-PGD: pixels weighted by their past, and prototypes of classes pulled together.

    Source: "RP-PGD: Boosting Segmentation Robustness with a Region-and-Prototype Based Adversarial Attack", AAAI 2025.

        T = unfooled on the clean image and at every step so far,   F = fooled on the clean image already
        B = unfooled on the clean image, fooled at some step; once in B, always in B
        L_R = mean over labelled pixels of w_i CE_i;   w = (2N - i) / (2N) on T,  (i - 1) / (2N) on B,  1 / (2N) on F,
              i = 1 .. N
        P_c = mean feature of the pixels of T predicted as c,   L_P = mean over pairs c != d of cos(P_c, P_d)
        L   = (1 - prototypes) L_R + prototypes L_P

    L_P is one number per image; here each labelled pixel has it, so that the mean over labelled pixels is L. Regions
    are updated once per step, before they are weighed, at its first forward pass; a pixel that this pass did not show
    keeps its region. Regions and predicted classes carry no gradient.

    Decisions where the paper does not bind us: features are coarser than pixels, and each pixel has the feature of the
    place that covers it; where the network is shown a padded image, places cover the padding too. Images with fewer
    than two classes in T have L_P = 0, several layers the mean of their L_P. In a targeted attack, where "fooled" means
    that the wanted class is taken and the loss falls, L_P enters with the opposite sign, so that the prototypes of
    pixels yet to be won are still pulled together. As a later stage of `Staged`, the past begins with that stage.

    The paper's own arguments: budget 0.03, steps of 0.01, a random start, 100 steps.

    Args:
        prototypes: share of L_P in [0, 1]; 0.25 in the paper. With 0 no layer is needed, and input transforms that
            move pixels are allowed.
        layers: whose outputs (B, D, h, w) are the features, see `Recorder`; the paper's layer is not known to us.

    Raises:
        ValueError: prototypes is out of range, or layers is no list of names; at the first use, a layer's output is no
            map.

    Example:
        >>> logits = torch.tensor([[[[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]])              # classes 0, 1, 0
        >>> clean = Prediction(logits, torch.tensor([[[0, 1, 1]]]))                       # the last is in F
        >>> moment = Moment(step=1, steps=2, clean=clean)
        >>> now = Prediction(torch.zeros(1, 2, 1, 3), clean.labels)                       # class 0: the second is in B
        >>> RPPGD(prototypes=0).weights(now, moment)                                      # i = 2, N = 2
        tensor([[[0.5000, 0.2500, 0.2500]]])
    """

    needs_clean = True
    layers: Sequence[str] = ()

    def __init__(self, prototypes: float = 0.25, layers: Sequence[str] = (AUTO,)) -> None:
        if not 0 <= prototypes <= 1:
            raise ValueError(f"prototypes={prototypes}: must be between 0 and 1")
        self.prototypes = prototypes
        self.layers = check_layers(layers) if prototypes else ()

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        with torch.no_grad():
            weights = self.weights(prediction, moment)
        loss = (1 - self.prototypes) * weights * prediction.cross_entropy
        if not self.layers:
            return loss
        maps = [_features(prediction, layer, flat=False) for layer in self.layers]
        in_t = self.regions(prediction, moment)[0]
        agreement = torch.stack(
            [
                _agreement_of_classes(features, prediction, in_t, prediction.extent(layer))
                for layer, features in zip(self.layers, maps, strict=True)
            ]
        ).mean(0)
        share = -self.prototypes if prediction.targeted else self.prototypes
        return loss + on_pixels(share * agreement, prediction)

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Weight of each pixel's cross-entropy, (B, H, W); updates the regions at a step's first forward pass."""
        number, twice = moment.step + 1, 2 * moment.steps
        in_t, in_b, in_f = (
            region.to(prediction.logits.dtype) for region in self.regions(prediction, moment, advance=moment.first)
        )
        return ((twice - number) * in_t + (number - 1) * in_b + in_f) / twice

    def regions(self, prediction: Prediction, moment: Moment, advance: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """T, B and F, each (B, H, W) bool, of labelled pixels."""
        clean = _clean(self, moment)
        lost = moment.memory.get("rp_pgd lost")
        if lost is None:
            lost = torch.zeros_like(clean.unfooled)
        if advance:
            now = clean.unfooled & prediction.valid & ~prediction.unfooled
            if moment.active is not None:
                now = now & moment.active.view(-1, 1, 1)
            lost = lost | now
            moment.memory["rp_pgd lost"] = lost
        valid = prediction.valid
        return clean.unfooled & ~lost & valid, lost & valid, ~clean.unfooled & valid


class FSPGD(Objective):
    """FSPGD: break the likeness between places of the image, then push each place away from what it was.

    Source: "FSPGD: Rethinking Black-box Attacks on Semantic Segmentation", 2025, arXiv 2502.01262, and its released
    code. It uses neither labels nor the output of the model, so it cannot be targeted.

        F, G  features of the clean and of the adversarial image at N places, each of length 1
        W_ij  = 1 where i != j and F_i . F_j > cosine, else 0
        local = mean_i F_i . G_i,   context = sum_ij W_ij G_i . G_j / (2 sum_ij W_ij)   (0 where W is all 0)
        J     = -(t / T) local - (1 - t / T) context,   t = 0 .. T-1

    J is one number per image; here each labelled pixel has it, so that the mean over labelled pixels is J. Several
    layers: the mean of their J. Places of a map that lie in the padding of the image count for nothing. W is never
    there in full: products with it are taken over blocks of rows of 64 MB.

    The released code's own arguments: the output of the third block of a ResNet's `layer3`, cosine = cos(pi / 3),
    T = 20, budget 0.03, random start. Its steps of 0.01 are in normalised images and come to 0.57/255 of the image.
    The paper is untargeted as well.

    Args:
        layers: whose outputs are the features, (B, D, h, w) maps or (B, N, D) tokens, see `Recorder`.
        cosine: likeness, in [-1, 1], above which two places of the clean image belong together.

    Raises:
        ValueError: cosine is out of range, or layers is no list of names; at the first use, a layer's output has
            another number of axes.

    Example:
        >>> logits, labels = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64)
        >>> before, after = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
        >>> clean, now = (Prediction(logits, labels, features={"a": features}) for features in (before, after))
        >>> FSPGD(["a"])(now, Moment(0, 2, clean))      # both places were alike (45 degrees); now they are at 90
        tensor([[[0., 0.]]])
        >>> FSPGD(["a"])(now, Moment(1, 2, clean))      # -1/2 (1 + sqrt(1/2)) / 2
        tensor([[[-0.4268, -0.4268]]])
    """

    needs_clean = True
    targetable = False
    layers: Sequence[str] = ()

    def __init__(self, layers: Sequence[str] = (AUTO,), cosine: float = 0.5) -> None:
        self.layers = check_layers(layers)
        if not -1 <= cosine <= 1:
            raise ValueError(f"cosine={cosine}: must be between -1 and 1")
        self.cosine = cosine

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        clean = _clean(self, moment)
        share = moment.step / moment.steps
        losses = []
        for layer in self.layers:
            before = unit(_features(clean, layer).detach(), dim=2)
            now = unit(_features(prediction, layer), dim=2)
            local = (before * now).sum(2).mean(1)
            losses.append(-share * local - (1 - share) * self.context(before, now))
        return on_pixels(torch.stack(losses).mean(0), prediction)

    def context(self, before: Tensor, now: Tensor) -> Tensor:
        """Mean likeness of places that were alike, halved, (B,), from features (B, N, D) of length 1."""
        with torch.no_grad():
            # Image by image: the size of a block, and so the rounding, then depends on no other image.
            found = [_alike(*both, self.cosine) for both in zip(before, now, strict=True)]
            towards, pairs = (torch.stack(parts) for parts in zip(*found, strict=True))
        # W is symmetric, so <G, W G> has the gradient 2 W G. With V = W G at hand, 2 <V, G> - <V, G'> (V and G' held
        # fixed) has this value and this gradient, and autograd needs no W.
        value = 2 * (towards * now).sum((1, 2)) - (towards * now.detach()).sum((1, 2))
        return value / (2 * pairs.clamp_min(1))


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1; zero stays zero, and its gradient is no larger than what comes in."""
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > 0, length, 1)


def _alike(before: Tensor, now: Tensor, cosine: float) -> tuple[Tensor, Tensor]:
    """W G and sum_ij W_ij of one image, from F and G, both (N, D)."""
    places = len(before)
    rows = max(1, BLOCK_BYTES // (places * before.element_size()))
    pairs, towards = before.new_zeros(()), torch.empty_like(now)
    for start in range(0, places, rows):
        block = (before[start : start + rows] @ before.T).gt_(cosine)
        block.diagonal(offset=start).zero_()
        pairs += block.sum()
        torch.matmul(block, now, out=towards[start : start + rows])
        del block  # before the next one is made
    return towards, pairs


def _agreement_of_classes(features: Tensor, prediction: Prediction, pixels: Tensor, extent: tuple[int, int]) -> Tensor:
    """L_P of each image, (B,): features (B, D, h, w) that cover an extent, pixels (B, H, W) bool."""
    images, classes, height, width = prediction.logits.shape
    rows, columns = features.shape[2:]
    device = features.device
    row = torch.arange(height, device=device) * rows // extent[0]
    column = torch.arange(width, device=device) * columns // extent[1]
    place = (row[:, None] * columns + column).expand_as(prediction.labels)
    image = torch.arange(images, device=device).view(-1, 1, 1)
    index = (image * classes + prediction.classes) * (rows * columns) + place
    counts = torch.zeros(images * classes * rows * columns, dtype=features.dtype, device=device)
    # Whole numbers: their sum is the same in any order, on any device.
    counts = counts.scatter_add_(0, index.flatten(), pixels.flatten().to(features.dtype)).view(images, classes, -1)
    pixels_of_class = counts.sum(2, keepdim=True)
    prototypes = unit(counts @ features.flatten(2).mT / pixels_of_class.clamp_min(1), dim=2)
    present = (pixels_of_class > 0).to(features.dtype)
    number = present.sum((1, 2))
    cosines = (prototypes @ prototypes.mT) * (1 - torch.eye(classes, dtype=features.dtype, device=device))
    return cosines.sum((1, 2)) / (number * (number - 1)).clamp_min(1)


def on_pixels(values: Tensor, prediction: Prediction) -> Tensor:
    """One value per image (B,) on each of its labelled pixels, (B, H, W)."""
    return values.view(-1, 1, 1) * prediction.valid


def _features(prediction: Prediction, layer: str, flat: bool = True) -> Tensor:
    """Features (B, N, D) of a layer, of maps and tokens alike; or not flat, maps (B, D, h, w) only."""
    features = prediction.features[layer]
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    if features.ndim == 4:
        return _in_the_image(features, prediction, layer).flatten(2).mT if flat else features
    if features.ndim == 3 and flat:
        return features
    allowed = "maps (B, D, h, w) or tokens (B, N, D)" if flat else "maps (B, D, h, w)"
    raise AttackError(f"layer '{layer}' returned {tuple(features.shape)}; expected {allowed}; name another layer")


def _in_the_image(features: Tensor, prediction: Prediction, layer: str) -> Tensor:
    """The map (B, D, h, w) of a layer without the places that lie in the padding of the image."""
    lengths = zip(features.shape[2:], prediction.labels.shape[1:], prediction.extent(layer), strict=True)
    rows, columns = (-(-places * pixels // extent) for places, pixels, extent in lengths)
    return features[:, :, :rows, :columns]


def _clean(objective: Objective, moment: Moment) -> Prediction:
    if moment.clean is None:
        raise AttackError(f"{type(objective).__name__} compares with the clean prediction; Moment.clean is missing")
    return moment.clean


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """The names of layers, if they are a list of one or more.

    Raises:
        ValueError: they are not.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers={layers!r}: must be a list of one or more names of layers, such as ['{AUTO}']")
    return tuple(layers)
