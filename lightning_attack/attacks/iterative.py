"""`IterativeAttack`: the one loop of all attacks that step inside a ball."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, StepLog
from lightning_attack.attacks.gradient_transforms import Budget, GradientFunction, GradientTransform, check_order
from lightning_attack.attacks.input_transforms import InputTransform, views
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives import Moment, Objective, Prediction
from lightning_attack.attacks.pixels import Pixels, parse_pixels
from lightning_attack.attacks.random import Draws


class IterativeAttack(Attack):
    """Projected gradient ascent from four kinds of parts.

        query points <- gradient transforms (look ahead, ask around)
        views        <- input transforms, each view's logits moved back to the image's geometry
        loss         <- objective, per pixel; summed over the pixels of each image
        gradient     <- with respect to the query point, mean over the views
        direction    <- gradient transforms (smooth, accumulate)
        x            <- norm: step, project to the ball, clamp to [0, 1]

    An image's loss is its own sum and the batch's loss the sum of those, so no image depends on its neighbours.

    After each step the log gets, per image: `loss` (mean over labelled pixels), `p_t` (share of labelled pixels that
    the model still predicted right before the step), and what the objective reports, all
    as the first look at the model in this step showed it: with DI on the moved view, with NI at the point ahead.

    Args:
        objective: what to maximise.
        norm: the budget.
        steps: number of steps, 1 or more.
        step_size: length of a step in the norm, above 0; a number or a fraction such as `2/255`.
        random_start: start at a random point of the ball instead of the clean image.
        input_transforms: applied in order to the image.
        gradient_transforms: the first is next to the model. Samplers before accumulators.
        name: name in tables and folders.

    Raises:
        ValueError: steps < 1, step_size <= 0, or an order of gradient transforms that cannot work.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives import CrossEntropy
        >>> attack = IterativeAttack(CrossEntropy(), Linf("51/255"), steps=2, step_size=0.15)
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)        # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 2), 0.5), torch.tensor([[[0, 1]]])
        >>> attack(model, images, labels)[0, 0]       # darker where bright is right, brighter where dark is
        tensor([[0.3000, 0.7000]])
    """

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "iterative",
    ) -> None:
        super().__init__(name)
        if steps < 1:
            raise ValueError(f"steps={steps}: must be 1 or more")
        self.objective, self.norm = objective, norm
        self.steps, self.step_size = steps, parse_pixels(step_size, "step_size")
        self.random_start = random_start
        self.input_transforms = list(input_transforms or [])
        self.gradient_transforms = list(gradient_transforms or [])
        check_order(self.gradient_transforms)

    def perturb(self, model: Model, images: Tensor, labels: Tensor, draws: Draws, log: StepLog) -> Tensor:
        clean = _clean_prediction(model, images, labels) if self.objective.needs_clean else None
        moment = Moment(0, self.steps, clean)

        def gradient(x: Tensor) -> Tensor:
            return self._gradient(model, x, labels, draws, moment)

        ascent: GradientFunction = gradient
        budget = Budget(self.norm.eps, self.step_size, self.steps, draws)
        for transform in self.gradient_transforms:
            ascent = transform(ascent, budget)

        adversarial = self.norm.start(images, draws) if self.random_start else images
        for step in range(self.steps):
            moment.step, moment.first, moment.figures = step, True, {}
            adversarial = self.norm.step(adversarial, images, ascent(adversarial), self.step_size)
            log(step, moment.figures)
        return adversarial

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.norm.quantize(images, adversarial)

    def _gradient(self, model: Model, x: Tensor, labels: Tensor, draws: Draws, moment: Moment) -> Tensor:
        """Gradient of each image's loss at x, mean over the views."""
        x = x.detach().requires_grad_()
        total, count = torch.zeros_like(x), 0
        for view in views(self.input_transforms, x, draws):
            # The network's part of the graph is each view's own and is freed with it, so memory stays that of one view.
            # The part between x and the views is small, and views may share it.
            shown = view.images.detach().requires_grad_()
            prediction = Prediction(view.undo(model(shown)), labels)
            if moment.step == 0 and moment.first:
                _check_labels(prediction)  # the only look that waits for the device, once per batch
            loss = self.objective(prediction, moment).flatten(1).sum(1)
            moment.report("loss", loss.detach() / prediction.count)
            moment.report("p_t", prediction.fraction(prediction.correct))
            moment.first = False
            at_view = torch.autograd.grad(loss.sum(), shown)[0]
            total = total + torch.autograd.grad(view.images, x, at_view, retain_graph=True)[0]
            count += 1
            del prediction, loss
        return total / count


def _check_labels(prediction: Prediction) -> None:
    classes, labels = prediction.logits.shape[1], prediction.labels[prediction.valid]
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels range over {int(labels.min())}..{int(labels.max())}, but the model has the classes "
            f"0..{classes - 1} (and 255 = ignored)"
        )


def _clean_prediction(model: Model, images: Tensor, labels: Tensor) -> Prediction:
    with torch.no_grad():
        return Prediction(model(images), labels)
