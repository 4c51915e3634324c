"""`Objective`, the loss of each pixel that an attack maximises, and those of FGSM, PGD, SegPGD and CosPGD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_attack.attacks.objectives.balance import balance, largest_other
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.random import Draws


@dataclass
class Moment:
    """State of the attack in the current step, for objectives whose loss depends on it.

    Attributes:
        step: number of the step, from 0.
        steps: how many there will be.
        clean: prediction for the clean images, where the objective `needs_clean`.
        memory: what an objective keeps from step to step; new for each attacked batch.
        figures: what an objective reports about this step, one value (B,) per image and name.
        first: whether this is the model's first forward pass of this step. There are several with several views or
            query points; what happens once per step happens at the first.
        active: (B,) bool, the images whose loss counts, for an objective that is a stage of `Staged`: those in that
            stage. What it finds for the others is thrown away. None = all images.
    """

    step: int
    steps: int
    clean: Prediction | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)
    first: bool = True
    active: Tensor | None = None

    def report(self, name: str, values: Tensor) -> None:
        """Log a figure (B,) of this step; values of later forward passes of the same step are ignored."""
        if self.first:
            self.figures[name] = values


@dataclass(frozen=True)
class Probe:
    """What an objective may use before the first step, see `Objective.prepare`.

    Attributes:
        look: images (B, 3, H, W), in [0, 1] or not, to the network's prediction for them, with the features of the
            objective's `layers`. Where gradients are enabled it has a graph, also back to images that ask for one.
        images: (B, 3, H, W), clean.
        draws: random numbers, image by image.
    """

    look: Callable[[Tensor], Prediction]
    images: Tensor
    draws: Draws


class Objective(ABC):
    """Loss of each pixel, to be maximised; in a targeted attack, where labels are wanted classes, to be minimised.

    Objects hold settings only; what lasts over steps is in `Moment.memory`. What an objective needs is said by the
    read-only properties below. A subclass for which they are fixed may write them as class attributes
    (`needs_clean = True`); one that takes `layers` as an argument declares `layers: Sequence[str] = ()` in its class.
    """

    @property
    def needs_clean(self) -> bool:
        """Whether it needs `Moment.clean`, which costs one more forward pass per batch."""
        return False

    @property
    def layers(self) -> Sequence[str]:
        """Names of the model's layers whose outputs it needs in `Prediction.features`, see `Recorder`."""
        return ()

    @property
    def targetable(self) -> bool:
        """Whether it can pull pixels to wanted classes; one that uses no labels cannot."""
        return True

    @property
    def prepares(self) -> bool:
        """Whether `prepare` does anything, which costs passes before the first step."""
        return False

    def prepare(self, probe: Probe, moment: Moment) -> None:  # noqa: B027 (most objectives need nothing)
        """Called before the first step, once for each batch and network: to keep in `moment.memory` what lasts.

        Each value there has the images as its first axis.
        """

    @abstractmethod
    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Loss of each pixel, (B, H, W), 0 on ignored pixels."""


class CrossEntropy(Objective):
    """The loss of FGSM, PGD and most others: L_i = -log softmax(z_i / T)_{y_i}.

    Above 1 the temperature T keeps the gradient of pixels alive that are fooled with certainty, and of those that are
    right with certainty: the gradient is (softmax(z / T) - onehot(y)) / T.

    Args:
        temperature: T, above 0; 1 is the usual cross-entropy.

    Raises:
        ValueError: temperature is not above 0.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        >>> CrossEntropy()(prediction, Moment(0, 1))      # log 2, and an ignored pixel
        tensor([[[0.6931, 0.0000]]])
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = check_temperature(temperature)

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        return prediction.softened_cross_entropy(self.temperature)


class WeightedCrossEntropy(Objective):
    """Cross-entropy of each pixel times a weight that carries no gradient: L_i = w_i CE_i.

    With `pull` each pixel is also drawn to one class: of those in the image's labels the largest that is not its own.
    Pixels that a view hides do not count: the largest class is that of the visible part.

        L_i = w_i ((1 - pull) CE_i + pull (z_{i,c} - z_{i,y}) / T),     c the largest class of the image other than y_i

    which is w_i (CE_i(y) - pull CE_i(c)). So objects are drawn to what surrounds them, and their surroundings to the
    largest object. Where an image has one class only, and in targeted attacks, which have wanted classes already, the
    loss is as without `pull`.

    Args:
        temperature: T of the cross-entropy, see `CrossEntropy`; the weights do not see it.
        power: from 0 to 1; above 0 the weights are also multiplied by those of `BalancedCrossEntropy`.
        pull: what the largest other class counts, from 0 to 1.

    Raises:
        ValueError: temperature is not above 0, or power or pull outside [0, 1].
    """

    pull: float = 0.0

    def __init__(self, temperature: float = 1.0, power: float = 0.0, pull: float = 0.0) -> None:
        self.temperature = check_temperature(temperature)
        for name, share in (("power", power), ("pull", pull)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share}: must be between 0 and 1")
        self.power = power
        if pull:  # 0 is not noted: settings stay those of earlier runs
            self.pull = pull

    @abstractmethod
    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Weight of each pixel, (B, H, W)."""

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        with torch.no_grad():
            weights = self.weights(prediction, moment)
            if self.power:
                weights = weights * balance(prediction, self.power)
        loss = prediction.softened_cross_entropy(self.temperature)
        if self.pull and not prediction.targeted:
            loss = self._pulled(loss, prediction)
        return weights * loss

    def _pulled(self, cross_entropy: Tensor, prediction: Prediction) -> Tensor:
        classes, there = largest_other(prediction)
        logits = prediction.logits.gather(1, torch.stack([classes, prediction.known_labels], 1)) / self.temperature
        pulled = (1 - self.pull) * cross_entropy + self.pull * (logits[:, 0] - logits[:, 1])
        return pulled.where(there & prediction.valid, cross_entropy)


class SegPGD(WeightedCrossEntropy):
    """SegPGD: first the still correct pixels, later more and more the misclassified ones too.

    Source: J. Gu, H. Zhao, V. Tresp, P. Torr, "SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and
    Boosting Segmentation Robustness", ECCV 2022, arXiv 2207.12391.

        w_i = 1 - lambda on P_T (still correct),  lambda on P_F (misclassified),   lambda = t / (2 T),  t = 0 .. T-1

    Example:
        >>> logits = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])        # class 0 at both pixels
        >>> prediction = Prediction(logits, torch.tensor([[[0, 1]]]))    # correct, misclassified
        >>> SegPGD().weights(prediction, Moment(step=1, steps=2))        # lambda = 1/4
        tensor([[[0.7500, 0.2500]]])
    """

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        wrong = moment.step / (2 * moment.steps)
        return two_weights(prediction.unfooled, 1 - wrong, wrong, prediction.logits.dtype)


class CosPGD(WeightedCrossEntropy):
    """CosPGD: weight by how well the prediction agrees with the label.

    Source: S. Agnihotri, S. Jung, M. Keuper, "CosPGD: an efficient white-box adversarial attack for pixel-wise
    prediction tasks", ICML 2024, arXiv 2302.02213.

        w_i = cos(softmax(z_i), onehot(y_i)) = p_i(y_i) / ||p_i||_2,  detached as in the released code

    In a targeted attack 1 - w_i, as in the paper: pixels far from the wanted class weigh most.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
        >>> CosPGD().weights(prediction, Moment(0, 1))      # 0.5 / sqrt(0.5^2 + 0.5^2)
        tensor([[[0.7071]]])
    """

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        probs = prediction.probs
        agreement: Tensor = prediction.of_label(probs) / probs.norm(dim=1)
        return 1 - agreement if prediction.targeted else agreement


def two_weights(mask: Tensor, inside: float, outside: float, dtype: torch.dtype) -> Tensor:
    """`inside` where the mask is true, `outside` elsewhere."""
    return torch.full_like(mask, outside, dtype=dtype).masked_fill_(mask, inside)


def check_temperature(temperature: float) -> float:
    """The temperature, if it is a number above 0; else `ValueError`."""
    if not temperature > 0:  # NaN too
        raise ValueError(f"temperature={temperature}: must be above 0; 1 is the plain cross-entropy")
    return temperature
