"""Objectives that lower the features on which the source's answer rests: FIA, NAA and BFA."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.norms import unit
from lightning_attack.attacks.objectives.base import Moment, Objective, Probe
from lightning_attack.attacks.objectives.features import check_layers, on_pixels
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.common.pixels import Pixels, zero_or_more


class WeightedFeatures(Objective):
    """Base class: the features of some layers, times weights that are found once, before the first step.

        A = sum over n of the gradient of a score of the labels w.r.t. the features f of x_n,  divided by its length
        L = - sum of A f                          x_n: `samples` changed copies of the clean image

    A score is the mean over the image's labelled pixels. L is one number per image; here each labelled pixel has it.
    Several layers: the mean of their L. In a targeted attack the labels are the wanted classes and L falls, so the
    features that speak for these classes grow.

    Each of the samples takes one gradient more, from the logits back to the layers.

    Args:
        layers: whose outputs are the features, tensors of any shape with the images first, see `Recorder`.
        samples: how many changed copies, 1 or more.

    Raises:
        ValueError: layers is no list of names, or samples is below 1; before the first step, a layer's output does not
            have the images first, or the answer does not depend on it.
    """

    prepares = True
    layers: Sequence[str] = ()

    def __init__(self, layers: Sequence[str], samples: int) -> None:
        self.layers = check_layers(layers)
        if not samples >= 1:  # NaN too
            raise ValueError(f"samples={samples}: must be 1 or more")
        self.samples = samples

    @abstractmethod
    def prepare(self, probe: Probe, moment: Moment) -> None: ...

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        values = [self.importance(prediction, moment, layer) for layer in self.layers]
        return on_pixels(-torch.stack(values).mean(0), prediction)

    def importance(self, prediction: Prediction, moment: Moment, layer: str) -> Tensor:
        """What the features of a layer say for the labels, (B,)."""
        return (self.kept(moment, layer) * _features(prediction, layer)).flatten(1).sum(1)

    def kept(self, moment: Moment, layer: str, what: str = "weights") -> Tensor:
        """What `prepare` has found for a layer.

        Raises:
            AttackError: it has not run.
        """
        found = moment.memory.get(self._key(layer, what))
        if found is None:
            raise AttackError(f"{type(self).__name__} has no weights yet; `prepare` must run before the first step")
        return found

    def keep(self, moment: Moment, totals: dict[str, Tensor], what: str = "weights") -> None:
        """Keep what was found for each layer; weights of unit length."""
        for layer, total in totals.items():
            moment.memory[self._key(layer, what)] = unit(total) if what == "weights" else total

    def _key(self, layer: str, what: str) -> str:
        # Two stages of `Staged` share the memory.
        settings = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings}) {what} of {layer}"

    def gradients(self, prediction: Prediction, score: Tensor, again: bool = False) -> dict[str, Tensor]:
        """The gradient of a score of each pixel, (B, H, W), w.r.t. the features of each layer.

        Args:
            prediction: with a graph.
            score: of its labelled pixels the mean counts.
            again: whether another gradient of the same prediction will be taken.
        """
        outputs = [prediction.features[layer] for layer in self.layers]
        found = torch.autograd.grad(_mean(prediction, score), outputs, retain_graph=again, allow_unused=True)
        gradients = {}
        for layer, output, gradient in zip(self.layers, outputs, found, strict=True):
            if gradient is None:
                raise AttackError(f"what the source says does not depend on layer '{layer}'; name another")
            if len(output) != len(prediction.labels):
                raise AttackError(
                    f"layer '{layer}' returned {tuple(output.shape)} for {len(prediction.labels)} images; expected the "
                    "images first; name another layer"
                )
            gradients[layer] = gradient.float() if _is_half(gradient) else gradient
        return gradients


class FIA(WeightedFeatures):
    """FIA: lower the features on which the label's logit rests, however pixels are dropped.

    Source: Z. Wang, H. Guo, Z. Zhang, W. Liu, Z. Qin, K. Ren, "Feature Importance-aware Transferable Adversarial
    Attacks", ICCV 2021, arXiv 2107.14185, and its released code.

        A = sum over n of  d z_y(x * M_n) / d f,   M_n = 1 with probability 1 - drop for each value, else 0
        L = - sum of A f / ||A||_2

    z_y is the mean over the labelled pixels of the label's logit; the paper has one label per image. The released code
    takes the logit, too, and a public port the probability after the softmax. The released code draws M for each value,
    not for each pixel, and so does this.

    The paper's own arguments: eps 16/255, 10 steps of 1.6/255 with momentum, 30 samples, drop 0.3 (released code: 0.1);
    VGG-16's conv3_3, the last block of a ResNet's second stage, Inception's Mixed_5b. Cost: `samples` passes more than
    the steps.

    Args:
        layers: whose outputs are the features, see `WeightedFeatures`.
        samples: copies with dropped values, 1 or more; the paper's is 30.
        drop: probability that a value is dropped, in [0, 1); 0 takes the gradient of the image itself.

    Raises:
        ValueError: an argument is out of range, and see `WeightedFeatures`.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> features = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> logits = torch.stack([3 * features[:, :1], -4 * features[:, 1:]], 1)[..., None]     # of classes 0 and 1
        >>> labels, moment = torch.tensor([[[1]]]), Moment(0, 1)
        >>> look = lambda images: Prediction(logits, labels, features={"a": features})
        >>> fia = FIA(["a"], samples=1)
        >>> fia.prepare(Probe(look, torch.ones(1, 3, 1, 1), Draws([0])), moment)       # A = (0, -4), of length 1
        >>> fia(look(None), moment).detach()                                            # -(-1 * 4)
        tensor([[[4.]]])
    """

    def __init__(self, layers: Sequence[str] = (AUTO,), samples: int = 30, drop: float = 0.3) -> None:
        super().__init__(layers, samples)
        if not 0 <= drop < 1:
            raise ValueError(f"drop={drop}: must be 0 or more, below 1; the paper's is 0.3")
        self.drop = drop

    def prepare(self, probe: Probe, moment: Moment) -> None:
        total: dict[str, Tensor] = {}
        for _ in range(self.samples if self.drop else 1):
            kept = probe.draws.uniform("importance mask", probe.images.shape[1:]) >= self.drop
            prediction = probe.look(probe.images * kept)
            _add(total, self.gradients(prediction, prediction.of_label(prediction.logits)))
        self.keep(moment, total)


class NAA(WeightedFeatures):
    """NAA: lower what each neuron of a layer adds to the label's probability on the way from a black image.

    Source: J. Zhang, W. Wu, J. Huang, Y. Huang, W. Wang, Y. Su, M. R. Lyu, "Improving Adversarial Transferability via
    Neuron Attribution-Based Attacks", CVPR 2022, arXiv 2204.00008, and its released code.

        A = sum over m = 1 .. samples of  d p_y(m / samples * (x + noise * n_m)) / d f,   n_m ~ N(0, 1) for each value
        W = (f - f') A / ||A||_2,          f' features of the black image: the attributions of the neurons
        L = - (sum of W where W >= 0  +  gamma * sum of W where W < 0)

    p_y is the mean over the labelled pixels of the label's probability. The paper's formula has no noise, its released
    code has. Other transformations of the attributions than the linear ones are worse in the paper, and are not here.

    The paper's own arguments: eps 16/255, 10 steps of 1.6/255 with momentum, 30 samples, gamma 1; layers as of `FIA`.
    Cost: `samples` passes more than the steps, and one forward pass.

    Args:
        layers: whose outputs are the features, see `WeightedFeatures`.
        samples: points of the path, 1 or more; the paper's is 30.
        gamma: weight of what speaks against the label, 0 or more; 1 in the paper.
        noise: standard deviation of the noise on the points, in pixels of [0, 1] images, 0 or more; 0.1 is the 0.2 of
            the released code, whose images are in [-1, 1].

    Raises:
        ValueError: an argument is out of range, and see `WeightedFeatures`.
    """

    def __init__(
        self, layers: Sequence[str] = (AUTO,), samples: int = 30, gamma: float = 1.0, noise: Pixels = 0.1
    ) -> None:
        super().__init__(layers, samples)
        if not 0 <= gamma < math.inf:  # NaN too
            raise ValueError(f"gamma={gamma}: must be a number, 0 or more; the paper's is 1")
        self.gamma, self.noise = gamma, zero_or_more(noise, "noise")

    def prepare(self, probe: Probe, moment: Moment) -> None:
        total: dict[str, Tensor] = {}
        for point in range(self.samples, 0, -1):
            images = probe.images
            if self.noise:
                images = images + self.noise * probe.draws.normal("attribution noise", images.shape[1:]).to(images)
            prediction = probe.look(images * (point / self.samples))
            score = prediction.of_label(prediction.logits.softmax(1))
            _add(total, self.gradients(prediction, score))
        self.keep(moment, total)
        with torch.no_grad():
            black = probe.look(torch.zeros_like(probe.images))
            self.keep(moment, {layer: _features(black, layer) for layer in self.layers}, "base")

    def importance(self, prediction: Prediction, moment: Moment, layer: str) -> Tensor:
        base = self.kept(moment, layer, "base")
        attributions = (_features(prediction, layer) - base) * self.kept(moment, layer)
        against = attributions if self.gamma == 1 else torch.where(attributions < 0, self.gamma, 1.0) * attributions
        return against.flatten(1).sum(1)


class BFA(WeightedFeatures):
    """BFA: lower the features on which the label's logit rests in images that were moved away from the label.

    Source: M. Wang, J. Wang, B. Ma, X. Luo, "Improving the transferability of adversarial examples through black-box
    feature attacks", Neurocomputing 2024, and its released code.

        x_n = x + reach * sqrt(number of values) * g / ||g||_2,   g = gradient of the cross-entropy at x_(n-1),  x_0 = x
        A   = sum over n = 1 .. samples of  d z_y(x_n) / d f
        L   = - sum of A f / ||A||_2

    The copies fit the source's own way of seeing the image, so what stays in A is what other networks see as well. z_y
    and the cross-entropy are means over the labelled pixels; in a targeted attack g is turned. As in the released code
    x_n is not cut to [0, 1].

    The paper's own arguments: eps 16/255, 10 steps of 1.6/255 with momentum, 30 samples, and 28 for the length of
    x_n - x, in images of 299 x 299; `reach` is that length for any size, 28 / sqrt(3 * 299 * 299) = 0.054. Layers as of
    `FIA`. Cost: 2 * `samples` passes more than the steps, one of each two from the logits to the layers only.

    Args:
        layers: whose outputs are the features, see `WeightedFeatures`.
        samples: moved copies, 1 or more; the paper's is 30.
        reach: root mean square of what the copies' values are moved by, in pixels of [0, 1] images, 0 or more.

    Raises:
        ValueError: an argument is out of range, and see `WeightedFeatures`.
    """

    def __init__(self, layers: Sequence[str] = (AUTO,), samples: int = 30, reach: Pixels = 0.054) -> None:
        super().__init__(layers, samples)
        self.reach = zero_or_more(reach, "reach")

    def prepare(self, probe: Probe, moment: Moment) -> None:
        total: dict[str, Tensor] = {}
        length = self.reach * math.sqrt(probe.images[0].numel())
        point = probe.images
        for number in range(self.samples + 1):
            point = point.detach().requires_grad_()
            prediction, last = probe.look(point), number == self.samples
            if number:
                _add(total, self.gradients(prediction, prediction.of_label(prediction.logits), again=not last))
            if not last:
                uphill = torch.autograd.grad(_mean(prediction, prediction.cross_entropy), point)[0]
                point = probe.images + (-length if prediction.targeted else length) * unit(uphill)
        self.keep(moment, total)


def _mean(prediction: Prediction, score: Tensor) -> Tensor:
    """The sum over the images of the mean over their labelled pixels of a score (B, H, W)."""
    shown = torch.where(prediction.valid, score, 0).flatten(1).sum(1)
    return (shown / prediction.count.clamp_min(1)).sum()


def _add(total: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for layer, gradient in found.items():
        total[layer] = total[layer] + gradient if layer in total else gradient


def _features(prediction: Prediction, layer: str) -> Tensor:
    features = prediction.features[layer]
    return features.float() if _is_half(features) else features


def _is_half(values: Tensor) -> bool:
    return values.dtype in (torch.float16, torch.bfloat16)
