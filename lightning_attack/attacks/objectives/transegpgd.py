"""TranSegPGD: two stages of pixel weights, and the switch between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_attack.attacks.objectives.base import Moment, Objective, Probe, WeightedCrossEntropy, two_weights
from lightning_attack.attacks.prediction import Prediction

KLDirection = Literal["adversarial||clean", "clean||adversarial"]

BLOCK, DEVICE_BLOCK = 2**18, 2**28
"""Terms of the divergence that are held at once: on the CPU of each image, on other devices of the whole batch."""


class FoolAllPixels(WeightedCrossEntropy):
    """Stage one of TranSegPGD: one weight for still correct pixels, another for misclassified ones.

    Source: X. Jia, J. Gu, Y. Huang, S. Qin, Q. Guo, Y. Liu, X. Cao, "TranSegPGD: Improving Transferability of
    Adversarial Examples on Semantic Segmentation", 2023, arXiv 2312.02207.

        L_i = (1 - gamma) CE_i on P_T (prediction = label),   gamma CE_i on P_F (the other labelled pixels)

    In a targeted attack P_T are the pixels that have not taken the wanted class yet.

    The split is made anew at every step from the current prediction and carries no gradient.

    Args:
        gamma: weight of misclassified pixels, in [0, 1]. The default 0.1 follows the abstract ("hard-to-attack pixels
            get the high weight") and keeps a little of the fooled pixels, so that they stay fooled; the paper's own
            value is not known to us. 0.5 is PGD. Above 0.5 the misclassified pixels weigh more, which is how another
            published summary reads.
        temperature: of the cross-entropy, see `CrossEntropy`; 1 in the paper.
        power: above 0 small classes weigh more, see `WeightedCrossEntropy`; 0 in the paper.
        pull: above 0 pixels are also drawn to the largest other class of the image, see there; 0 in the paper.

    Raises:
        ValueError: gamma, power or pull outside [0, 1], or temperature not above 0.

    Example:
        >>> logits = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])        # class 0 at both pixels
        >>> prediction = Prediction(logits, torch.tensor([[[0, 1]]]))    # correct, misclassified
        >>> FoolAllPixels(gamma=0.25).weights(prediction, Moment(0, 1))
        tensor([[[0.7500, 0.2500]]])
    """

    def __init__(self, gamma: float = 0.1, temperature: float = 1.0, power: float = 0.0, pull: float = 0.0) -> None:
        super().__init__(temperature, power, pull)
        self.gamma = _share(gamma, "gamma")

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        return two_weights(prediction.unfooled, 1 - self.gamma, self.gamma, prediction.logits.dtype)


class TransferablePixels(WeightedCrossEntropy):
    """Stage two of TranSegPGD: one weight for pixels whose prediction moved far from the clean one, one for the rest.

    Source: as `FoolAllPixels`.

        K_i = KL(p_i(x_adv) || p_i(x)) = sum_c p_ic(x_adv) (log p_ic(x_adv) - log p_ic(x)),  p = the source's softmax
        P_H = labelled pixels with K_i above the image's threshold,  P_L = the other labelled pixels
        L_i = (1 - beta) CE_i on P_H,   beta CE_i on P_L

    K only selects: it carries no gradient, and the split is made anew at every step. Where P_H is empty, as at the
    clean image, all labelled pixels have the weight 1 - beta.

    Args:
        beta: weight of the pixels of low KL, in [0, 1]; default 0.1, as gamma. 0.5 is PGD.
        kl: `adversarial||clean` (default; read so by the two published re-implementations that agree with the abstract)
            or `clean||adversarial`, which weighs classes lost rather than classes won.
        threshold: `mean` of K over the image's labelled pixels (default; both re-implementations), `median` (P_H is
            half of the pixels), or a number q in (0, 1): the q-quantile, so that P_H is the share 1-q. K is skewed:
            the mean selects fewer pixels than the median.
        temperature: of the cross-entropy, see `CrossEntropy`; 1 in the paper. K uses the softmax without temperature.
        power: above 0 small classes weigh more, see `WeightedCrossEntropy`; 0 in the paper.
        pull: above 0 pixels are also drawn to the largest other class of the image, see there; 0 in the paper.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> labels = torch.tensor([[[0, 0]]])
        >>> clean = Prediction(torch.zeros(1, 2, 1, 2), labels)
        >>> now = Prediction(torch.tensor([[[[0.0, -5.0]], [[0.0, 5.0]]]]), labels)      # only the second pixel moved
        >>> TransferablePixels(beta=0.25).weights(now, Moment(0, 1, clean=clean))
        tensor([[[0.2500, 0.7500]]])
    """

    needs_clean = True

    def __init__(
        self,
        beta: float = 0.1,
        kl: KLDirection = "adversarial||clean",
        threshold: float | str = "mean",
        temperature: float = 1.0,
        power: float = 0.0,
        pull: float = 0.0,
    ) -> None:
        super().__init__(temperature, power, pull)
        self.beta = _share(beta, "beta")
        if kl not in get_args(KLDirection):
            raise ValueError(f"kl='{kl}': must be one of {', '.join(get_args(KLDirection))}")
        if threshold not in ("mean", "median") and not (isinstance(threshold, float) and 0 < threshold < 1):
            raise ValueError(f"threshold={threshold!r}: must be mean, median or a quantile between 0 and 1")
        self.kl, self.threshold = kl, threshold

    def weights(self, prediction: Prediction, moment: Moment) -> Tensor:
        high = self.high(prediction, moment)
        moment.report("p_h", prediction.fraction(high))
        # Where no pixel is above the others, as at the clean image, all weigh alike: with beta 0 none would ever move.
        high = high | ~high.flatten(1).any(1).view(-1, 1, 1) & prediction.valid
        return two_weights(high, 1 - self.beta, self.beta, prediction.logits.dtype)

    def high(self, prediction: Prediction, moment: Moment) -> Tensor:
        """P_H, (B, H, W) bool."""
        if moment.clean is None:
            raise ValueError("TransferablePixels compares with the clean prediction; Moment.clean is missing")
        p, q = prediction.log_probs, moment.clean.log_probs
        if self.kl == "clean||adversarial":
            p, q = q, p
        divergence = _divergence(p, q).masked_fill(~prediction.valid, torch.nan).flatten(1)
        if self.threshold == "mean":
            limit = divergence.nanmean(1, keepdim=True)
        else:
            quantile = 0.5 if self.threshold == "median" else float(self.threshold)
            # By sorting (NaN last): torch.quantile refuses more than 16 million values.
            ranks = ((prediction.count - 1).clamp_min(0) * quantile).long()[:, None]
            limit = divergence.sort(1)[0].gather(1, ranks)
        return (divergence > limit).view_as(prediction.labels)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of each pixel, (B, H, W), from log-probabilities (B, C, H, W).

    Some rows at a time: its terms would be the largest tensors of the loss, and so few of them stay in the CPU's cache.
    Devices with memory of their own would wait for many small kernels: there the blocks only bound the memory.
    """
    if p.device.type == "cpu":
        rows = max(1, BLOCK // (p.shape[1] * p.shape[3]))
    else:
        rows = max(1, DEVICE_BLOCK // (p.shape[0] * p.shape[1] * p.shape[3]))
    blocks = zip(p.split(rows, 2), q.split(rows, 2), strict=True)
    return torch.cat([now.exp().mul_(now - then).sum(1) for now, then in blocks], 1)


class Switch:
    """When an image goes to the next stage: at the first of the given events. It never goes back.

    Args:
        at: share of the steps in [0, 1]: step t is in the next stage once t >= at * steps. Default 0.5.
        fooled: share of the image's labelled pixels that the source misclassifies, in (0, 1]. Default none.
        all_fooled: whether the literal rule counts too: no labelled pixel is predicted right any more. Default true.

    The paper's rule is not known to us. The literal one alone is a poor switch: within the usual budgets most images
    keep a few right pixels, and stage two never starts; so half of the steps count too. `Switch(at=0)` is stage two
    alone, `Switch(at=None, all_fooled=False)` stage one alone.

    Raises:
        ValueError: a share is out of range.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, 1, 1]]]))     # 3 of 4 are fooled
        >>> Switch(at=0.5)(prediction, Moment(step=4, steps=10)), Switch(fooled=0.75)(prediction, Moment(4, 10))
        (tensor([False]), tensor([True]))
    """

    def __init__(self, at: float | None = 0.5, fooled: float | None = None, all_fooled: bool = True) -> None:
        self.at = None if at is None else _share(at, "at")
        if fooled is not None and not 0 < fooled <= 1:
            raise ValueError(f"fooled={fooled}: must be above 0 and at most 1 (or null)")
        self.fooled, self.all_fooled = fooled, all_fooled

    def reached(self, step: int, steps: int) -> bool:
        """Whether the number of the step alone decides that every image has switched."""
        return self.at is not None and step >= self.at * steps - 1e-6  # 0.07 * 100 is above 7

    @property
    def depends_on_image(self) -> bool:
        """Whether an image may switch before the others."""
        return self.all_fooled or self.fooled is not None

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Images for which one of the events has come, (B,) bool."""
        if self.reached(moment.step, moment.steps) or not self.depends_on_image:
            return torch.full_like(prediction.count, self.reached(moment.step, moment.steps), dtype=torch.bool)
        # A pixel that a view left out counts as right: whether it is fooled was not seen.
        right, count = prediction.unfooled.flatten(1).sum(1) + prediction.hidden, prediction.count + prediction.hidden
        allowed = 0.0 if self.fooled is None else 1 - self.fooled
        # Counts, not shares: (1 - fooled) * count is exact enough that a thousandth of a pixel covers its rounding.
        return right <= allowed * count + 1e-3


class Staged(Objective):
    """One objective after the other; each image moves on by itself.

    Args:
        stages: objectives, in order; none of them a `Staged`.
        switches: one between each two stages.

    Raises:
        ValueError: the numbers of stages and switches do not fit, or a stage is a `Staged`.

    Example:
        >>> two = Staged([FoolAllPixels(), TransferablePixels()], [Switch(at=0.5)])
        >>> two.needs_clean
        True
    """

    def __init__(self, stages: Sequence[Objective], switches: Sequence[Switch]) -> None:
        if not stages or len(switches) != len(stages) - 1:
            raise ValueError(
                f"{len(stages)} stages and {len(switches)} switches; give one switch between each two stages"
            )
        if any(isinstance(stage, Staged) for stage in stages):
            # Both would count the stages of an image in the same place.
            raise ValueError(
                "a stage of Staged is a Staged itself; give all stages to one Staged, in order, and one switch between "
                "each two of them"
            )
        self.stages, self.switches = list(stages), list(switches)

    @property
    def needs_clean(self) -> bool:
        return any(stage.needs_clean for stage in self.stages)

    @property
    def layers(self) -> Sequence[str]:
        return tuple(dict.fromkeys(layer for stage in self.stages for layer in stage.layers))

    @property
    def targetable(self) -> bool:
        return all(stage.targetable for stage in self.stages)

    @property
    def prepares(self) -> bool:
        return any(stage.prepares for stage in self.stages)

    def prepare(self, probe: Probe, moment: Moment) -> None:
        for stage in self.stages:
            stage.prepare(probe, moment)

    def __call__(self, prediction: Prediction, moment: Moment) -> Tensor:
        stage = self._stage(prediction, moment)
        moment.report("stage_two", (stage > 0) & (prediction.count > 0))
        first, last = self._possible(moment)
        # The copies share what is kept and what is reported.
        loss = self.stages[first](prediction, replace(moment, active=stage == first))
        for number in range(first + 1, last + 1):
            here = stage == number
            loss = torch.where(here.view(-1, 1, 1), self.stages[number](prediction, replace(moment, active=here)), loss)
        return loss

    def _stage(self, prediction: Prediction, moment: Moment) -> Tensor:
        """Number of each image's stage, (B,); decided once per step, at its first forward pass."""
        stage = moment.memory.get("stage")
        if stage is None:
            stage = torch.zeros_like(prediction.count)
        if moment.first:
            for number, switch in enumerate(self.switches):
                stage = torch.where((stage == number) & switch(prediction, moment), number + 1, stage)
            moment.memory["stage"] = stage
        return stage

    def _possible(self, moment: Moment) -> tuple[int, int]:
        """Lowest and highest stage that an image can be in, as far as the number of the step tells.

        So nothing is computed that no image needs, and nothing waits for the device.
        """
        first = last = 0
        for switch in self.switches:
            if first == last and switch.reached(moment.step, moment.steps):
                first = last = first + 1
            elif switch.depends_on_image or switch.reached(moment.step, moment.steps):
                last += 1
            else:
                break
        return first, last


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: must be between 0 and 1")
    return value
