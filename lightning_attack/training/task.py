"""`SegmentationTask`: train a segmentation network, to attack it or to test it against attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import lr_scheduler

from lightning_attack.common.data_module import of_data
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.windows import Windows
from lightning_attack.metrics import SegmentationScores
from lightning_attack.models.class_names import check_class_order
from lightning_attack.models.wrapper import ModelError, as_segmentation_model, check_abstains, decide
from lightning_attack.training.begun import TrainingError, differences

ENCODERS = {"encoder", "backbone"}
"""Names of the part that usually comes pretrained: in smp and transformers, and in torchvision."""
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "poly", "constant"]


def _smp_loss(kind: str, **settings: Any) -> nn.Module:
    from segmentation_models_pytorch import losses  # here, for it takes a second

    return getattr(losses, kind)("multiclass", ignore_index=IGNORE_INDEX, **settings)


LOSSES: dict[str, Callable[[Tensor | None], nn.Module]] = {
    "cross_entropy": lambda weight: nn.CrossEntropyLoss(weight, ignore_index=IGNORE_INDEX),
    "dice": lambda weight: _smp_loss("DiceLoss"),
    "lovasz": lambda weight: _smp_loss("LovaszLoss", from_logits=True),
    "focal": lambda weight: _smp_loss("FocalLoss"),
}
"""Losses by name; each is built from the class weights, which only the cross-entropy uses."""
_SETTINGS = "optimizer_settings"
"""Key of the settings of the optimizer in a checkpoint."""


class SegmentationTask(LightningModule):
    """Train a segmentation network, and compute its mIoU on the validation photos after every epoch.

    One-cycle: L. N. Smith, N. Topin, "Super-Convergence", 2017, arXiv 1708.07120: the learning rate rises during the
    share `warmup` of the steps, then falls to about 0. Poly: lr * (1 - t / T)^0.9 in step t of T, as in DeepLab
    (L.-C. Chen et al., 2016, arXiv 1606.00915).

    It logs `train/loss`, and per epoch `val/miou` (classes that occur in the labels), `val/accuracy` and
    `val/iou/<class>`; `test` likewise.

    Args:
        network: the network to train; takes [0, 1] images, as `SMPModel` does.
        lr: largest learning rate, above 0.
        encoder_lr_factor: the encoder's rate is `lr` times this, above 0; below 1 if the encoder is pretrained and the
            decoder is not. The encoder is every part named `encoder` or `backbone`.
        weight_decay: of the optimizer.
        warmup: share of the steps in which the rate of one-cycle rises, in (0, 1).
        losses: weight of each loss: `cross_entropy`, `dice`, `lovasz`, `focal`.
        class_weights: weight of each class in the cross-entropy; None = equal ones.
        aux_weight: weight of the same losses on the auxiliary output of networks that have one (torchvision's `aux`);
            0.4 in PSPNet.
        loss_stride: the losses use every n-th row and column, beginning with a random one; 1 = all. On CPUs, and with
            many classes, losses of all pixels take as long as the network, and neighbouring pixels add little.
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        schedule: `one_cycle`, `poly` or `constant`.
        channels_last: memory format in which colours and features are innermost: the same numbers but for rounding,
            about twice as fast on CPUs and with half precision.
        windows: run the network on overlapping windows of the photos for validation and test, not on whole photos.

    Raises:
        ValueError: an argument is out of range.
        ModelError: the network's number of classes is not known, or it has no encoder to give its own rate.
        TrainingError: the schedule does not know when training ends, or that of a checkpoint ends before; or a
            checkpoint's optimizer has other settings, with which training would go on.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 1e-3,
        encoder_lr_factor: float = 1.0,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        losses: Mapping[str, float] | None = None,
        class_weights: Sequence[float] | None = None,
        aux_weight: float = 0.4,
        loss_stride: int = 1,
        optimizer: Optimizer = "adamw",
        schedule: Schedule = "one_cycle",
        channels_last: bool = False,
        windows: Windows | None = None,
    ) -> None:
        super().__init__()
        if lr <= 0 or encoder_lr_factor <= 0 or not 0 < warmup < 1:
            raise ValueError(
                f"lr={lr} and encoder_lr_factor={encoder_lr_factor} must be above 0, warmup={warmup} between 0 and 1"
            )
        if optimizer not in get_args(Optimizer) or schedule not in get_args(Schedule):
            raise ValueError(
                f"optimizer='{optimizer}' must be one of {', '.join(get_args(Optimizer))}, "
                f"schedule='{schedule}' one of {', '.join(get_args(Schedule))}"
            )
        if loss_stride < 1:
            raise ValueError(f"loss_stride={loss_stride}: must be 1 or more")
        losses = dict(losses or {"cross_entropy": 1.0})
        if not losses.keys() <= LOSSES.keys() or not all(weight > 0 for weight in losses.values()):
            raise ValueError(f"losses={losses}: must be weights above 0 of {', '.join(LOSSES)}")
        self.network = as_segmentation_model(network)
        classes = self.network.num_classes
        if classes is None:
            raise ModelError(
                f"network '{self.network.name}' needs num_classes for training: wrap it as "
                "{class_path: SegmentationModel, init_args: {network: ..., num_classes: 21}}"
            )
        if class_weights is not None and len(class_weights) != classes:
            raise ValueError(f"class_weights has {len(class_weights)} numbers, the network {classes} classes")
        weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.losses = nn.ModuleDict({name: LOSSES[name](weight) for name in losses})
        self.loss_weights, self.aux_weight, self.loss_stride = losses, aux_weight, loss_stride
        self.lr, self.encoder_lr_factor = lr, encoder_lr_factor
        self.weight_decay, self.warmup = weight_decay, warmup
        self.optimizer, self.schedule = optimizer, schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        self.network.windows = windows
        self.scores = SegmentationScores(classes, abstains=self.network.abstains)

    def setup(self, stage: str) -> None:
        """Raise `ModelError` for a network that cannot learn, or that is scored by classes in another order."""
        name = self.network.name
        check_abstains(self.network, name)
        if stage == "fit" and self.network.abstains:
            raise ModelError(
                f"network '{name}' abstains (Smoothed): it counts decisions, which have no gradient to learn by\n"
                "train the network inside it, and put Smoothed around the trained one"
            )
        classes = of_data(self.trainer, "trained_classes")
        if stage in ("validate", "test") and classes:
            check_class_order(name, self.network, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images in [0, 1]."""
        return self.network(images)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits, auxiliary = self.network.outputs(batch["image"].contiguous(memory_format=self.memory_format))
        row, column = torch.randint(self.loss_stride, (2,)).tolist()
        counted = ..., slice(row, None, self.loss_stride), slice(column, None, self.loss_stride)
        loss = self.loss(logits[counted], batch["mask"][counted])
        if auxiliary is not None and self.aux_weight:
            loss = loss + self.aux_weight * self.loss(auxiliary[counted], batch["mask"][counted])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum of the losses of logits (B, C, H, W) against labels (B, H, W), a scalar."""
        logits = logits.float()
        terms = [weight * self.losses[name](logits, labels) for name, weight in self.loss_weights.items()]
        return torch.stack(terms).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count predictions against labels; returns the predicted classes, (B, H, W), `ABSTAINED` where it abstains."""
        logits = self(batch["image"].contiguous(memory_format=self.memory_format))
        predicted = decide(self.network, logits)
        self.scores.update(predicted, batch["mask"])
        return predicted

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, stage: str) -> None:
        scores = self.scores.compute()
        values = {"miou": scores["miou"], "accuracy": scores["accuracy"]}
        classes = of_data(self.trainer, "trained_classes")
        for name, iou in zip(classes or map(str, range(len(scores["iou"]))), scores["iou"], strict=True):
            if not iou.isnan():  # a class without a label
                values[f"iou/{name}"] = iou
        for name, value in values.items():
            # compute() has summed over the processes already; sync_dist keeps Lightning from warning about it. On the
            # module's device, because NCCL reduces no tensors of the CPU.
            value = value.to(self.device, torch.float32)
            self.log(f"{stage}/{name}", value, prog_bar=name == "miou", sync_dist=True)
        self.scores.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what builds the network again and its class names, so that `export` needs nothing but the checkpoint."""
        checkpoint["recipe"] = getattr(self.network, "recipe", None)
        checkpoint["classes"] = of_data(self.trainer, "trained_classes")
        checkpoint[_SETTINGS] = self._kept()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise `TrainingError` if training goes on with other settings of the optimizer, whose state has its own."""
        learns = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if learns and (said := differences(checkpoint.get(_SETTINGS, {}), self._kept())):
            raise TrainingError(
                "ckpt_path: training goes on with the optimizer and the learning rate of the checkpoint; give its "
                f"settings again, or begin anew from its weights:{said}"
            )

    def _kept(self) -> dict[str, Any]:
        """The settings that the states of the optimizer and of its schedule have in them."""
        names = ["optimizer", "schedule", "lr", "encoder_lr_factor", "weight_decay"]
        return {name: getattr(self, name) for name in names + ["warmup"] * (self.schedule == "one_cycle")}

    def on_train_start(self) -> None:
        """Raise `TrainingError` if the learning rate, from a checkpoint, ends before the training does."""
        for config in self.trainer.lr_scheduler_configs:
            schedule, steps = config.scheduler, self.trainer.estimated_stepping_batches
            if config.interval != "step" or not isinstance(
                schedule, lr_scheduler.OneCycleLR | lr_scheduler.PolynomialLR
            ):
                continue
            length = schedule.total_steps if isinstance(schedule, lr_scheduler.OneCycleLR) else schedule.total_iters
            if steps > length:
                raise TrainingError(
                    f"the checkpoint's learning rate ends after {length} steps, so training cannot go on to step "
                    f"{steps}\ngo on with the trainer.max_epochs, data and batch size that it began with, or begin "
                    "anew from its weights"
                )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer: torch.optim.Optimizer
        groups = self.parameter_groups()
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=self.weight_decay)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < float("inf"):
            raise TrainingError(
                f"schedule={self.schedule} needs to know when training ends, and neither trainer.max_epochs nor "
                "trainer.max_steps says so (trainer.max_time does not count steps)\n"
                "give --trainer.max_epochs=50 or so, or --model.schedule=constant, which has no end"
            )
        steps = int(steps)
        if self.schedule == "one_cycle":
            # With a rise of exactly one step torch divides by zero.
            rise = max(self.warmup, min(2 / steps, 0.75))
            largest = [group["lr"] for group in groups]
            scheduler: Any = lr_scheduler.OneCycleLR(optimizer, largest, steps, pct_start=rise)
        else:
            scheduler = lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters with their learning rates: one group, or decoder and encoder if their rates differ."""
        if self.encoder_lr_factor == 1:
            return [{"params": list(self.network.parameters()), "lr": self.lr}]
        encoder: list[nn.Parameter] = []
        decoder: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            (encoder if ENCODERS & set(name.split(".")) else decoder).append(parameter)
        if not encoder:
            raise ModelError(
                f"network '{self.network.name}' has no part named {' or '.join(sorted(ENCODERS))}; leave out "
                "encoder_lr_factor"
            )
        return [{"params": decoder, "lr": self.lr}, {"params": encoder, "lr": self.encoder_lr_factor * self.lr}]
