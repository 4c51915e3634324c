"""`AttackModule`: the attack of one batch as Lightning's predict step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_attack.attacks.base import Attack, NoAttack
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.random import image_seeds
from lightning_attack.attacks.wrappers.per_window import PerWindow
from lightning_attack.common.background import Behind
from lightning_attack.common.windows import Windows
from lightning_attack.engine import Kind, Precision
from lightning_attack.models.acceleration import FastNetworks, weakly
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.models.wrapper import ModelError, as_segmentation_model, freeze, with_windows
from lightning_attack.predict.batches import divide, join
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.cost import PeakMemory, clock, count_passes
from lightning_attack.predict.networks import meet
from lightning_attack.predict.quantize import rounded
from lightning_attack.predict.recovery import OnError, attempt, finite, refuse
from lightning_attack.predict.scoring import Scorer
from lightning_attack.predict.step_curve import StepCurve
from lightning_attack.predict.target_labels import check_target_labels, wanted_classes


class AttackModule(LightningModule):
    """Attack `source`, score everything.

    `predict_step` takes a batch of `SegmentationDataModule` and returns

    * `index`, `name`, `image`: those of the batch that could be attacked;
    * `adversarial`: (B, 3, H, W) in [0, 1], on the 8-bit grid inside the budget: what is scored is what is saved;
    * `labels`: (B, H, W), the batch's masks, or the source's clean prediction where it has none;
    * `target_labels`: (B, H, W), the wanted classes of a targeted run, 255 = no wish; else absent;
    * `preds`: for each scored network `{"clean": (B, H, W), "adversarial": (B, H, W)}`, predicted classes;
    * `curve`: (B, networks, points, C, C), confusion matrices after the steps of `curve`; absent without a curve;
    * `failed`: for each image a mapping from targets that could not be scored to the reason;
    * `skipped`: images that were left out; if all were, there is nothing else;
    * `figures`: one mapping per attack step from names to tensors (B,), see `StepLog`;
    * `passes`: forward and backward passes of the source per image, of an ensemble those of all members; `seconds`:
      time of the attack, `scoring` that of all networks' predictions, `memory` bytes per image at the attack's peak.

    A batch may hold more than images and labels: `region` (B, H, W) bool, where images may change; `target_mask`
    (B, H, W) int64, wanted classes; with `NoAttack` `adversarial`, images that were attacked elsewhere and are scored,
    and `adversarial_eps` (B,), the budget inside which they are rounded.

    The source is always scored (white box). A target that gives the same logits on a probe image as the source *is* the
    source: it takes the white-box row and is not run twice. A target that is a member of an ensemble that is attacked
    is white box too. Networks are frozen and stay in eval mode. Modules may share networks one after the other: how
    they are run (`engine`, `precision`, `windows`) is up to the newest.

    Args:
        source: the network to attack, on [0, 1] images; what is no `SegmentationModel` is wrapped as it is.
        attack: the attack.
        targets: networks to score, by name.
        target_labels: makes the attack a targeted one, towards a class (its number), `least_likely` or `masks`. A class
            number: all labelled pixels shall take it; `least_likely`: each labelled pixel the class that the source's
            clean prediction finds least likely; `masks`: the batch's `target_mask`, see `data.target_masks`. None:
            pixels shall lose their labels.
        quantize: round adversarial images to 8 bits. False scores the float images; the saved PNGs are then not quite
            what was scored.
        seed: seed of all randomness; each image has its own, from this one and its position in the data set.
        probe_size: height and width of the probe image, for networks that take one size only.
        windows: run every network on overlapping windows of a photo and average what they say; None: on the whole one.
            Its `attack` tells whether the photo is attacked or each window on its own.
        exact: show the networks one image at a time, so that results are the same to the last bit whatever the batch
            size; networks compute in another order for another batch size, and sign steps amplify that rounding.
        engine: how networks are run, see `FastNetworks`: `eager` (the reference), `fused` or `compiled`.
        precision: what the attack's passes compute in, unless with `eager`: `float32` or `bf16`.
        curve_every: score the images after every so many steps of the attack too, see `StepCurve`; None: only the last.

    Raises:
        ModelError: the networks differ in their number of classes, one fails on a probe image, or a name stands for two
            networks.
        ValueError: no such target class, the attack cannot be targeted, has no curve, or needs what the source lacks.
    """

    def __init__(
        self,
        source: nn.Module,
        attack: Attack,
        targets: dict[str, nn.Module] | None = None,
        target_labels: int | str | None = None,
        quantize: bool = True,
        seed: int = 0,
        probe_size: tuple[int, int] = (64, 64),
        windows: Windows | None = None,
        exact: bool = False,
        engine: Kind | None = None,
        precision: Precision = "float32",
        curve_every: int | None = None,
    ) -> None:
        super().__init__()
        self.attack = PerWindow(attack, windows) if windows and windows.attack == "window" else attack
        self.quantize, self.seed, self.exact, self.windows = quantize, seed, exact, windows
        self.attacks_nothing = isinstance(attack, NoAttack)
        """Whether the data may bring adversarial images."""
        self.on_error: OnError = "raise"
        self.source = with_windows(as_segmentation_model(source), windows)
        networks = meet(self.source, targets or {}, windows, probe_size)
        self.source_name, self.white_box = networks.source_name, networks.white_box
        self.scored = nn.ModuleList(networks.scored)
        self.num_classes = networks.num_classes
        self.target_labels = check_target_labels(target_labels, self.num_classes)
        if target_labels is not None:
            self.attack.check_targetable()
        attack.check_model(self.source)
        self.curve = None if curve_every is None else StepCurve.of(self.attack, curve_every)
        self.on_status: Callable[[str], None] = lambda status: None
        """Told what is being done, for progress bars."""
        self.behind = Behind()
        """Does what callbacks have to write of a batch while the next one is attacked; done when predict ends."""
        self.kept: CleanPredictions | None = None
        """What the networks said about clean photos under other attacks, and will be asked under the next ones."""
        freeze(self)
        self.engine, self.precision = engine, precision
        self._fast = FastNetworks(networks.scored, engine, precision, weakly(self._say))
        self._memory = PeakMemory()

    def _say(self, status: str) -> None:
        self.on_status(status)

    @property
    def target_names(self) -> list[str]:
        """Names of the scored networks in the order of `scored`; `white_box` tells which is the source."""
        return list(self.white_box)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The scored networks by name."""
        return dict(zip(self.white_box, self.scored, strict=True))

    @property
    def partners_seed(self) -> int | None:
        """For the data: the seed of the photos that the attack mixes in; None if it does not."""
        return self.seed if self.attack.mixes else None

    def settings(self) -> dict[str, Any]:
        """What decides on the results, as plain values; networks by a hash of their weights."""
        return {
            "attack": self.attack.settings(),
            "source": {self.source_name: fingerprint(self.source)},
            "targets": {name: fingerprint(network) for name, network in self.networks.items()},
            "target_labels": self.target_labels,
            "quantize": self.quantize,
            "seed": self.seed,
            "exact": self.exact,
            "engine": self.engine,
            "precision": self.precision,
            "curve": None if self.curve is None else list(self.curve.steps),
            "windows": None if self.windows is None else asdict(self.windows),
        }

    def train(self, mode: bool = True) -> AttackModule:
        """Do nothing: networks under attack stay in eval mode, whatever the caller says."""
        return self

    def check_classes(self, classes: tuple[str, ...] | None) -> None:
        """Raise `ModelError` if the data's classes are not as many as the networks'."""
        if classes is not None and len(classes) != self.num_classes:
            raise ModelError(
                f"source '{self.source.name}' has {self.num_classes} classes, but the data has {len(classes)} "
                f"({', '.join(classes[:4])}, ...); choose data and networks of the same classes"
            )

    def configure_callbacks(self) -> list[Callback]:
        """Let a callback that arranges the others (`RunFolder`) do so before anything is set up; adds none."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "arrange"):
                callback.arrange(self.trainer)
                break
        return []

    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise ModelError("AttackModule is for predict; train networks with SegmentationTask")
        if self.trainer.precision in ("16-mixed", "16-true", "bf16-true"):
            raise ModelError(
                f"trainer.precision={self.trainer.precision} would round images or lose gradients of an attack; "
                "use 32-true or bf16-mixed"
            )
        datamodule = getattr(self.trainer, "datamodule", None)
        self.check_classes(getattr(datamodule, "classes", None))
        if datamodule is not None:
            datamodule.partners_seed = self.partners_seed
        # Lightning decides on the mode after this hook and before the loop; later is too late.
        if self.trainer.predict_loop.inference_mode:
            rank_zero_info("Attacks need gradients: inference mode is switched off for this run.")
            self.trainer.predict_loop.inference_mode = False

    def on_predict_epoch_end(self) -> None:
        # Before callbacks hear that predict has ended.
        self.behind.finish()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        skipped = list(batch.get("skipped", ()))
        count = len(batch.get("image", ()))
        batches = divide(batch, 1 if self.exact else count) if count else []
        parts = [one for part in batches for one in attempt(part, self._attack_batch, self.on_error, skipped)]
        return {**(join(parts) if parts else {}), "skipped": skipped}

    def _attack_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = batch["image"]
        if "adversarial" in batch and not self.attacks_nothing:
            raise AttackError(f"the data brings adversarial images, and '{self.attack.name}' would make others")
        names = batch.get("name", [f"image {index}" for index in batch["index"].tolist()])
        score = Scorer(self.networks, self.source_name, names, self.on_error)
        self.on_status("clean prediction")
        scoring = -clock(images)
        seen: list[Tensor] = []  # the source's clean logits, if the attack would ask for them again
        keep = {self.source_name: seen} if self._lends else {}
        clean = {name: self._clean(name, batch, score, keep.get(name)) for name in self.target_names}
        scoring += clock(images)
        labels = batch["mask"] if "mask" in batch else clean[self.source_name]
        wanted = wanted_classes(self.target_labels, self.source, batch, labels)

        figures: list[Mapping[str, Tensor]] = []
        watched = None if self.curve is None else self.curve.watch()

        def log(step: int, values: Mapping[str, Tensor]) -> None:
            figures.append(values)
            self.on_status(f"{self.attack.name} step {step + 1}")

        with self._fast.attacking(), count_passes(self.source) as passes:
            self._memory.begin(images.device)
            seconds = clock(images)
            adversarial = self.attack(
                self.source,
                images,
                labels if wanted is None else wanted,
                image_seeds(self.seed, batch["index"]),
                log,
                targeted=wanted is not None,
                region=batch.get("region"),
                partners=batch.get("partners"),
                watch=watched,
                clean_logits=seen[0] if seen else None,
            )
            seconds = clock(images) - seconds
            memory = self._memory.end(images.device)
        if seen:  # what it lends is the attack's price, whoever paid it
            passes["forward"] += self.attack.clean_passes * len(images)
            memory = None if memory is None else memory + seen[0].nbytes
            seen.clear()
        adversarial = batch.get("adversarial", adversarial)
        # The sign of NaN is NaN, and so is all that follows from it.
        refuse(~finite(adversarial), names, f"the gradients of '{self.source_name}' are NaN")
        if self.quantize:
            eps = batch.get("adversarial_eps")
            adversarial = rounded(self.attack if eps is None else Linf(float(eps[0])), images, adversarial)

        preds = {}
        scoring -= clock(images)
        for name in self.target_names:
            self.on_status(f"scoring {name}")
            preds[name] = {"clean": clean[name], "adversarial": score(name, adversarial)}
        curve = {}
        if watched is not None:
            self.on_status("scoring single steps")
            # A target that fails at a step is left out as a whole: the curve ends in the figure of the table.
            curve["curve"] = watched.count(
                score,
                lambda one: self.attack.quantize(images, one) if self.quantize else one,
                {name: both["adversarial"] for name, both in preds.items()},
                labels,
                self.num_classes,
            )
        scoring += clock(images)
        return {
            "index": batch["index"],
            "name": names,
            "digest": batch.get("digest", [""] * len(names)),
            "image": images,
            "adversarial": adversarial,
            "labels": labels,
            **({} if wanted is None else {"target_labels": wanted}),
            **({"region": batch["region"]} if "region" in batch else {}),
            "preds": preds,
            **curve,
            "failed": score.failed,
            "figures": figures,
            "passes": {kind: count / len(images) for kind, count in passes.items()},
            "seconds": seconds,
            "scoring": scoring,
            "memory": None if memory is None else memory / len(images),
        }

    @property
    def _lends(self) -> bool:
        """Whether the attack can have the clean logits that the source is scored by: they are what it would see."""
        return self.attack.clean_passes > 0 and self.precision == "float32" and not hasattr(self.source, "members")

    def _clean(self, name: str, batch: dict[str, Any], score: Scorer, keep: list[Tensor] | None) -> Tensor:
        """What a network says of the clean photos; what is known of all of them is not asked again."""

        def predict() -> Tensor:
            return score(name, batch["image"], keep)

        if self.kept is None or "digest" not in batch:
            return predict()
        autocast = torch.is_autocast_enabled(self.device.type)
        network = self.networks[name], self.engine, repr(self.windows), autocast
        return self.kept.of(network, batch["digest"], predict, lambda row: name in score.failed[row]).to(self.device)
