"""`LossGradient`: the gradient of an objective at a point, over all views and all members of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_attack.attacks.base import Model, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import Recorder
from lightning_attack.attacks.input_transforms.base import InputTransform, View, Warp, views
from lightning_attack.attacks.objectives.base import Moment, Objective, Probe
from lightning_attack.attacks.prediction import Prediction, check_logits
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.source import TransformedSource, transformed
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.engine.autocast import full_precision


def loss_members(model: Model) -> list[tuple[Model, float]]:
    """The networks whose losses are averaged, with their weights: those of an ensemble by loss, or the model itself.

    An ensemble is any model with `members`, `weights` and `by`; with `by == "loss"` the attack averages, the
    other ensembles average inside the model.
    """
    ensemble: Any = model
    if getattr(ensemble, "by", None) != "loss":
        return [(model, 1.0)]
    return list(zip(ensemble.members, ensemble.weights, strict=True))


class StepGradient(Protocol):
    """What the steps of an attack follow: a point -> the direction to go; told when a step begins."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Where to go from a point, (B, 3, H, W)."""

    def begin(self, step: int) -> None:
        """Begin a new step, counted from 0."""

    def forget(self) -> None:
        """Let the objective forget what it kept from step to step, for an attack that starts anew."""

    @property
    def figures(self) -> dict[str, Tensor]:
        """What is known of the current step, one value (B,) per image and name, see `IterativeAttack`."""


class LossGradient:
    """Points of the images' shape -> the direction in which the objective grows, (B, 3, H, W).

    An image's loss is the sum over its own pixels and the batch's loss the sum of those, so no image depends on its
    neighbours. The gradient is the mean over the views, taken with respect to the point; in a targeted attack its sign
    is turned. Outside of the region it is not zeroed, so that its mean size stays that of the whole image; steps are.

    Args:
        problem: the batch.
        objective: what to maximise.
        input_transforms: applied in order to the point.
        steps: how many steps there will be.
        remember: whether `seen` is kept; it holds the logits as long as the network runs backwards.
        source_transforms: how the source is changed where gradients are taken; `Moment.clean` is of the source
            as it is.

    Attributes:
        figures: what is known of the current step, one value (B,) per image and name, see `IterativeAttack`.
        seen: if remembered, the prediction of this step's first forward pass (with several members, of the first of
            them).
    """

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        input_transforms: Sequence[InputTransform],
        steps: int,
        remember: bool = False,
        source_transforms: Sequence[SourceTransform] = (),
    ) -> None:
        self.problem, self.objective, self.input_transforms = problem, objective, input_transforms
        self._remember = remember
        self.seen: Prediction | None = None
        self._partial = any(transform.partial for transform in input_transforms)
        self._checked = False
        self._members: list[_Member] = []
        members = loss_members(problem.model)
        # Of an ensemble by loss these logits are those of the average, not of each member.
        known = None if objective.layers or len(members) > 1 else problem.clean_logits
        for network, weight in members:
            recorder, moment = Recorder(network, objective.layers), Moment(0, steps)
            if objective.needs_clean and known is not None:
                moment.clean = Prediction(known, problem.labels, problem.targeted)
            elif objective.needs_clean:
                with torch.no_grad():
                    logits, features = recorder(problem.images)
                    moment.clean = self._prediction(logits, features, View(problem.images), recorder.extents)
            if objective.prepares:
                objective.prepare(Probe(partial(self._look, recorder), problem.images, problem.draws), moment)
            changed = transformed(network, source_transforms)
            self._members.append(_Member(recorder, weight, moment, changed, dict(moment.memory)))
        self._needs_clean = any(member.changed and member.changed.needs_clean for member in self._members)

    def begin(self, step: int) -> None:
        """Begin a new step, counted from 0."""
        self.seen = None
        for moment in self._moments:
            moment.step, moment.first, moment.figures = step, True, {}

    def forget(self) -> None:
        """Let the objective forget what it kept from step to step, for an attack that starts anew."""
        for member in self._members:
            member.moment.memory = dict(member.prepared)

    def select(self, rows: Tensor) -> None:
        """Continue with some of the images: those at `rows` of the present ones."""
        self.problem = self.problem.select(rows)
        for moment in self._moments:
            moment.clean = None if moment.clean is None else moment.clean.select(rows)
            moment.memory = {name: values[rows] for name, values in moment.memory.items()}
        for member in self._members:
            member.prepared = {name: values[rows] for name, values in member.prepared.items()}

    @property
    def figures(self) -> dict[str, Tensor]:
        """Figures of this step, of several members their weighted mean."""
        first, *others = self._members
        if not others:
            return first.moment.figures
        total = {name: values * first.weight for name, values in first.moment.figures.items()}
        for member in others:
            total = {name: values + member.moment.figures[name] * member.weight for name, values in total.items()}
        return total

    @property
    def _moments(self) -> list[Moment]:
        return [member.moment for member in self._members]

    def __call__(self, x: Tensor) -> Tensor:
        # The point may lie anywhere, as the one ahead of NI does; the model sees changes inside the region only.
        x = self.problem.inside(x.detach()).requires_grad_()
        total, count = torch.zeros_like(x), 0
        for view, clean_view in self._views(x):
            if view.warp is not None:
                view, clean_view = self._adapted(view.warp, view, clean_view)
            clean = None if clean_view is None else clean_view.images
            # The network's part of the graph is each view's own and is freed with it, so memory stays that of one view.
            # The part between x and the views is small, and views may share it.
            shown = view.images.detach().requires_grad_()
            at_view = torch.zeros_like(shown)
            for member in self._members:
                at_view = at_view + self._at(shown, view, clean, member)
            total = total + torch.autograd.grad(view.images, x, at_view, retain_graph=True)[0]
            count += 1
        return total / count

    def _adapted(self, warp: Warp, view: View, clean: View | None) -> tuple[View, View | None]:
        """A view, and the clean images in it, after the step of its warp against the attack."""
        uphill = torch.zeros_like(warp.values)
        for member in self._members:
            prediction = self._seen_by(member, view.images, view, None if clean is None else clean.images)
            first, member.moment.first = member.moment.first, False  # the step's own first pass is yet to come
            loss = self._loss(prediction, member.moment) / prediction.count.clamp_min(1)
            member.moment.first = first
            # The members share the graph from the values to the view.
            shared = member is not self._members[-1]
            slope = torch.autograd.grad(loss.sum(), warp.values, retain_graph=shared)[0]
            uphill = uphill + slope * member.weight
        values = warp.values.detach() + (warp.rho if self.problem.targeted else -warp.rho) * uphill
        again = None if clean is None or clean.warp is None else clean.warp.at(values)
        return warp.at(values), again

    def _views(self, x: Tensor) -> Iterator[tuple[View, View | None]]:
        """The views of a point, each with that of the clean images if a source transform needs them."""
        if not self._needs_clean:
            for view in views(self.input_transforms, x, self.problem.draws):
                yield view, None
            return
        # The same random numbers once more.
        again = self.problem.draws.fork()
        both = (views(self.input_transforms, x, self.problem.draws),
                views(self.input_transforms, self.problem.images, again))  # fmt: skip
        for view, clean in zip(*both, strict=True):
            yield view, clean

    def _loss(self, prediction: Prediction, moment: Moment) -> Tensor:
        """The objective of each image, (B,), summed over its pixels."""
        with full_precision(prediction.logits):
            loss = self.objective(prediction, moment)
        name, batch = type(self.objective).__name__, len(prediction.labels)
        if not isinstance(loss, Tensor) or loss.ndim < 1 or len(loss) != batch:
            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise AttackError(
                f"objective {name} returned {found} for {batch} images; expected a loss for each pixel, (B, H, W), or "
                "for each image, (B,): no image of a batch has to do with another, so there is no mean over it"
            )
        if not loss.requires_grad:
            raise AttackError(
                f"the loss of {name} does not depend on the image in a differentiable way: the network runs without "
                "gradients (torch.no_grad) or returns decisions (argmax), or the objective detaches what it is given"
            )
        return loss.reshape(batch, -1).sum(1)

    def _at(self, shown: Tensor, view: View, clean: Tensor | None, member: _Member) -> Tensor:
        """Gradient of one member's loss with respect to what it is shown."""
        moment, weight = member.moment, member.weight
        prediction = self._seen_by(member, shown, view, clean)
        loss = self._loss(prediction, moment)
        if moment.first:
            moment.report("loss", loss.detach() / prediction.count)
            moment.report("p_t", prediction.fraction(prediction.unfooled))
            moment.first = False
            if self._remember and self.seen is None:
                self.seen = prediction.detached()
        total = loss.sum()
        del loss, prediction  # the backward pass frees what it has used up, if nobody else holds it
        gradient = torch.autograd.grad(total, shown)[0]
        return gradient * (-weight if self.problem.targeted else weight)

    def _seen_by(self, member: _Member, shown: Tensor, view: View, clean: Tensor | None) -> Prediction:
        """What a member says of a view."""
        if member.changed is None:
            logits, features = member.recorder(shown)
        else:
            logits, features = member.changed(shown, self.problem.draws, member.moment.step, clean), {}
        prediction = self._prediction(logits, features, view, member.recorder.extents)
        self._check(prediction)
        return prediction

    def _look(self, recorder: Recorder, images: Tensor) -> Prediction:
        """A network's prediction for images, for an objective that prepares; weights ask for no gradient."""
        images = images if images.requires_grad else images.detach().requires_grad_(torch.is_grad_enabled())
        logits, features = recorder(images)
        labels, targeted = self.problem.labels, self.problem.targeted
        prediction = Prediction(logits, labels, targeted, features, extents=recorder.extents)
        self._check(prediction)
        return prediction

    def _check(self, prediction: Prediction) -> None:
        """Check all labels, also those that this view does not show; it waits for the device, so once per batch."""
        if not self._checked:
            self._checked = True
            check_labels(self.problem.labels, prediction.logits.shape[1])

    def _prediction(
        self, logits: Tensor, features: dict[str, Tensor], view: View, extents: dict[str, tuple[int, int]]
    ) -> Prediction:
        labels, hidden = self.problem.labels, None
        # Before they are moved back: most moves take logits of other sizes too, and would misplace them.
        size = view.images.shape[2:]
        check_logits(logits, (len(labels), *size), "labels" if size == labels.shape[1:] else "images")
        if self._partial:
            # Where a map of ones does not come back, the view did not show the pixel: no label there.
            shown = view.undo(torch.ones_like(view.images[:, :1]))[:, 0] > 0.99
            hidden = (~shown & (labels != IGNORE_INDEX)).flatten(1).sum(1)
            labels = torch.where(shown, labels, IGNORE_INDEX)
        return Prediction(view.undo(logits), labels, self.problem.targeted, features, hidden, extents)


@dataclass
class _Member:
    """A network whose loss is averaged, and what is known of the current step; `changed` by source transforms.

    What the objective has kept before the first step is `prepared`: it outlives a new start of the attack.
    """

    recorder: Recorder
    weight: float
    moment: Moment
    changed: TransformedSource | None
    prepared: dict[str, Tensor]


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise `ValueError` if a label is none of the model's classes."""
    labels = labels[labels != IGNORE_INDEX]
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise AttackError(
            f"labels range over {int(labels.min())}..{int(labels.max())}, but the model has the classes "
            f"0..{classes - 1} (and 255 = ignored)"
        )
