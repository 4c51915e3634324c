"""`UniversalTask`: learn one perturbation for all photos of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_attack.attacks.base import Problem, describe, frozen
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.input_transforms.base import InputTransform, check_last
from lightning_attack.attacks.loops.gradient import LossGradient
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.objectives.base import CrossEntropy, Objective
from lightning_attack.attacks.random import Draws, image_seeds
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.universal import Spread, Universal, check_spread, spread_to
from lightning_attack.common.first_process import in_first_process
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.pixels import Pixels, parse_pixels
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.models.wrapper import as_segmentation_model
from lightning_attack.training.begun import differences

STAGES = 1000
"""Parts into which the steps are divided for objectives that change from the first step to the last."""
_SETTINGS = "universal"
"""Key of the settings in a checkpoint."""


class UniversalTask(LightningModule):
    """Learn one perturbation that fools a network on all photos of a data set, and write it to a file.

    Source: S.-M. Moosavi-Dezfooli et al., "Universal adversarial perturbations", CVPR 2017, arXiv 1610.08401, which
    goes from photo to photo. Here it is learned by signed gradients of batches, as in A. Shafahi et al., "Universal
    Adversarial Training", AAAI 2020, arXiv 1811.11304, and, for segmentation, J. H. Metzen et al., ICCV 2017, arXiv
    1704.05712 (there of all photos at each step, and targeted):

        g     = mean over the images of a batch of the gradient of their mean loss per labelled pixel, w.r.t. delta,
                at clamp(x + spread(delta), 0, 1);       m <- momentum * m + g / mean|g|
        delta <- clamp(delta + step_size * sign(m), -eps, eps),     delta = 0 at first

    What a step sees is a batch, so delta depends on `data.batch_size` times `trainer.accumulate_grad_batches` times the
    number of devices, on which of the three it does not; with several devices photos fall into other batches. What is
    drawn for an image depends on the seed, the step and the image alone. Checkpoints hold delta, m and the settings,
    not the network; one of other settings is refused.

    It logs `train/loss`, and `train/p_t`, the share of labelled pixels that are still right; images without labels do
    not count.

    Args:
        source: the network to attack; takes [0, 1] images.
        file: where the perturbation goes, for `UniversalPerturbation`; written after each epoch.
        eps: L-inf radius, of [0, 1] pixels, above 0: a number or a fraction.
        step_size: length of a step, above 0.
        momentum: share of m that stays, 0 or more.
        size: height and width of the perturbation, or one number for both.
        spread: how it gets the size of a photo: `tile` repeats it, `resize` resizes it.
        objective: what to maximise.
        input_transforms: applied in order to the images, see `IterativeAttack`.
        source_transforms: how the source is changed while gradients are taken.
        seed: seed of all that is drawn for images.

    Raises:
        ValueError: an argument is out of range, or the objective needs features and a transform moves pixels.
        AttackError: in a step, a gradient is not finite, it names the photos; or a checkpoint is of other settings.
    """

    def __init__(
        self,
        source: nn.Module,
        file: str = "universal.pt",
        eps: Pixels = "8/255",
        step_size: Pixels = "1/255",
        momentum: float = 0.9,
        size: int | tuple[int, int] = 256,
        spread: Spread = "tile",
        objective: Objective | None = None,
        input_transforms: Sequence[InputTransform] | None = None,
        source_transforms: Sequence[SourceTransform] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < float("inf"):  # NaN too
            raise ValueError(f"momentum={momentum}: must be a number, 0 or more")
        height, width = (size, size) if isinstance(size, int) else size
        if not (height >= 1 and width >= 1):
            raise ValueError(f"size={size}: must be 1 or more")
        self.source = as_segmentation_model(source)
        self.file, self.norm = Path(file), Linf(eps)
        self.step_size, self.momentum = parse_pixels(step_size, "step_size"), momentum
        self.spread, self.seed = check_spread(spread), seed
        self.objective = objective or CrossEntropy()
        self.input_transforms, self.source_transforms = list(input_transforms or []), list(source_transforms or [])
        check_last(self.input_transforms)
        if self.objective.layers and (self.source_transforms or any(one.spatial for one in self.input_transforms)):
            raise ValueError(
                f"{type(self.objective).__name__} uses features of a layer; leave out source_transforms, and "
                "input_transforms that move pixels"
            )
        self.delta = nn.Parameter(torch.zeros(3, height, width))
        self.source.requires_grad_(False)
        self._settings = self.settings()  # as they are before a part has run
        self.strict_loading = False  # a checkpoint has no weights of the source

    @property
    def mixer(self) -> str | None:
        """The input transform that mixes the images of a batch, by its class; None if none does."""
        return next((type(one).__name__ for one in self.input_transforms if one.mixes), None)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """A number whose gradient w.r.t. delta is that of the mean loss, turned: optimizers go down."""
        images, labels = batch["image"], batch["mask"]
        if len(images) == 1 and (mixer := self.mixer):
            raise AttackError(f"{mixer} mixes the images of a batch; it needs 2 or more, not 1")
        point = (images + spread_to(self.delta, images.shape[-2:], self.spread)).clamp(0, 1)
        # By the step too, so that a photo meets other views in each epoch.
        seeds = image_seeds(self.seed, batch["index"] + 2**32 * self.trainer.global_step)
        problem = Problem(self.source, images, labels, Draws(seeds, images.device), log=lambda step, figures: None)
        total = max(self.trainer.estimated_stepping_batches, 1)  # infinite where nobody says when it ends
        with frozen(self.source), torch.enable_grad():
            gradient = LossGradient(
                problem, self.objective, self.input_transforms, STAGES, source_transforms=self.source_transforms
            )
            gradient.begin(min(int(STAGES * self.trainer.global_step // total), STAGES - 1))
            uphill = gradient(point.detach())
        bad = ~uphill.isfinite().flatten(1).all(1)
        if bad.any():  # the sign of NaN is NaN, and so would be the perturbation from here on
            named = batch.get("name") or [f"at position {index}" for index in batch["index"].tolist()]
            said = ", ".join(str(named[row]) for row in bad.nonzero().flatten().tolist())
            raise AttackError(
                f"step {self.trainer.global_step + 1}: the gradient of '{self.source.name}' is not finite for {said}\n"
                "leave these photos out, or take a network and an objective that give numbers for them"
            )
        for name, values in gradient.figures.items():
            if name in ("loss", "p_t"):
                self.log(f"train/{name}", self._mean(values), prog_bar=True, batch_size=len(images))
        labelled = (labels != IGNORE_INDEX).flatten(1).sum(1).clamp_min(1).view(-1, 1, 1, 1)
        return -(point * (uphill / labelled)).sum() / len(images)

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over the images of all processes that have a value: one without labels has none, which is NaN."""
        known = ~values.isnan()
        total = torch.stack([values.nansum(), known.sum().to(values.dtype)]).detach()
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        return total[0] / total[1]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SignAscent([self.delta], self.step_size, self.momentum, self.norm.eps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the weights of the source out, and add the settings."""
        checkpoint["state_dict"] = {"delta": checkpoint["state_dict"]["delta"]}
        checkpoint[_SETTINGS] = self._settings

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise `AttackError` for a checkpoint of another perturbation: the file would be said to be made otherwise."""
        if list(checkpoint["state_dict"]) != ["delta"]:
            raise AttackError("ckpt_path: this is no checkpoint of a universal perturbation\ngive one of `universal`")
        if not checkpoint.get("optimizer_states"):
            raise AttackError(
                "ckpt_path: this checkpoint has no state of an optimizer, so learning cannot go on from it\n"
                "a ModelCheckpoint with save_weights_only: false keeps it"
            )
        (group,) = checkpoint["optimizer_states"][0]["param_groups"]
        # Checkpoints of earlier versions have these alone.
        begun = {"eps": group["eps"], "step_size": group["lr"], "momentum": group["momentum"]}
        begun |= {"size": list(checkpoint["state_dict"]["delta"].shape[1:])} | checkpoint.get(_SETTINGS, {})
        if said := differences(begun, self._settings):
            raise AttackError(
                "ckpt_path: this checkpoint was learned with other settings; give these again, or begin anew without "
                f"ckpt_path:{said}"
            )

    def on_train_epoch_end(self) -> None:
        """Write the perturbation as it is now."""
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            in_first_process(self.trainer, lambda: self.universal().save(self.file))

    def universal(self) -> Universal:
        """The perturbation as it is now."""
        about = {name: value for name, value in self._settings.items() if name not in ("eps", "size", "spread")}
        facts = {"steps": self.trainer.global_step, "epochs": self.trainer.current_epoch + 1}
        return Universal(self.delta.detach().cpu().clone(), self.norm.eps, self.spread, about | facts)

    def settings(self) -> dict[str, Any]:
        """What decides about the perturbation beside the data, as plain values."""
        names = ("step_size", "momentum", "spread", "objective", "input_transforms", "source_transforms", "seed")
        plain = {name: describe(getattr(self, name)) for name in names}
        network = {"source": self.source.name, "network": fingerprint(self.source)}
        return network | {"eps": self.norm.eps, "size": list(self.delta.shape[1:])} | plain


class SignAscent(torch.optim.Optimizer):
    """Steps against the sign of a gradient with momentum, inside [-eps, eps].

        m <- momentum * m + g / mean|g|,     p <- clamp(p - lr * sign(m), -eps, eps)

    Example:
        >>> p = nn.Parameter(torch.tensor([0.0, 0.0]))
        >>> p.grad = torch.tensor([-1.0, 3.0])
        >>> SignAscent([p], lr=0.5, momentum=0.9, eps=0.25).step()
        >>> p.tolist()
        [0.25, -0.25]
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, momentum: float, eps: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; the closure, if there is one, computes the gradients."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                size = parameter.grad.abs().mean().clamp_min(torch.finfo(parameter.dtype).tiny)
                state = self.state[parameter]
                state["m"] = parameter.grad / size + group["momentum"] * state.get("m", 0.0)
                parameter.sub_(group["lr"] * state["m"].sign()).clamp_(-group["eps"], group["eps"])
        return result
