"""`AttackModule`: attack a network and score it and others, as Lightning's predict step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.given import Given, takes_given
from lightning_attack.attacks.source_transforms.source import left_out_told_to
from lightning_attack.attacks.wrappers.per_window import PerWindow
from lightning_attack.common.data_module import of_data
from lightning_attack.common.labels import class_advice
from lightning_attack.common.user_hash import user_code
from lightning_attack.common.windows import Windows
from lightning_attack.engine import Kind, Precision, check_exact, check_precision, exact_on
from lightning_attack.engine.autocast import autocast_is_on
from lightning_attack.models.acceleration import FastNetworks, weak_callback
from lightning_attack.models.class_names import check_class_order
from lightning_attack.models.fingerprint import earlier_fingerprint, fingerprint, narrower_fingerprint
from lightning_attack.models.probe import noise
from lightning_attack.models.size_costs import size_cost
from lightning_attack.models.worth import WORTH_REWRITING, Expected
from lightning_attack.models.wrapper import (
    ModelError,
    as_segmentation_model,
    freeze,
    with_windows,
    without_engines,
)
from lightning_attack.predict.batch_attack import BatchAttack
from lightning_attack.predict.batches import Batch, as_batch
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.cost import PeakMemory
from lightning_attack.predict.networks import identify_networks
from lightning_attack.predict.output import AttackOutput, merge
from lightning_attack.predict.passes import expected_passes, shown
from lightning_attack.predict.positions import Positions
from lightning_attack.predict.preflight import check_attackable
from lightning_attack.predict.recovery import Attempts, OnError, check_on_error
from lightning_attack.predict.step_curve import StepCurve
from lightning_attack.predict.target_labels import check_target_labels


@runtime_checkable
class StatusListener(Protocol):
    """A callback that is told what `AttackModule` is doing, such as a progress bar. It need not inherit from this."""

    def on_attack_status(self, status: str) -> None:
        """Called with a few words for each part of the work, such as `pgd step 3`."""


class AttackModule(LightningModule):
    """Attack `source` and score it and `targets` on the adversarial images, batch by batch, in `Trainer.predict`.

    `predict_step` takes a `Batch`, as `SegmentationDataModule` or a `DataLoader` of one's own gives it, and returns an
    `AttackOutput`; the callbacks of `lightning_attack.callbacks` turn these into files and tables.

    All randomness of an image is drawn from `seed` and from the image's position in the data set, so that its
    adversarial image does not depend on batch size, order or the number of processes. The position is the batch's
    `index`; without one it is what the loader's sampler drew, see `Positions`.

    The source is always scored (white box). A target that gives the same logits as the source, on a probe image and
    on a larger one, *is* the source: it takes the white-box row and is not run twice. A target that is a member of an
    ensemble that is attacked is white box too. Networks are run on an image of noise first, and a source that cannot be
    attacked is refused (see `check_attackable`). Networks are frozen and stay in eval mode. Modules may share networks
    one after the other: their `windows` are up to the newest. Callbacks that are a `StatusListener` are told what is
    being done.

    What looks wrong with the networks before any photo is seen stands in `doubts`; `TransferMetrics` says it. What the
    attack has to leave out on this source stands in `notes`, and is warned about in each run.

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
            size; networks compute in another order for another batch size, and sign steps amplify that rounding. On
            CUDA it takes algorithms that add in a fixed order, and full float32 without TF32.
        engine: how networks are run, see `FastNetworks`: `eager` (the reference), `fused` or `compiled`; None: `fused`
            where the passes that will come pay for it, see `Worth`.
        precision: what the attack's passes compute in, unless with `eager`: `float32` or `bf16`.
        curve_every: score the images after every so many steps of the attack too, see `StepCurve`; `auto`: about ten
            times; None: only after the last.
        on_error: what becomes of images that cannot be attacked, and of targets that cannot be scored: an error
            (`raise`), or they are left out and named in the output (`skip`).
        clean_cache: predictions on clean images that several modules share, one after the other.

    Raises:
        ModelError: the networks differ in their number of classes or have more than 255, one fails on a probe image, a
            name stands for two networks, or no gradient comes from the source.
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
        curve_every: int | Literal["auto"] | None = None,
        on_error: OnError = "raise",
        clean_cache: CleanPredictions | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(attack, Attack):
            raise TypeError(f"attack is {attack!r}; expected an Attack, such as lightning_attack.attacks.pgd()")
        if not isinstance(targets, Mapping | None):
            raise TypeError(f"targets are a {type(targets).__name__}; expected a dictionary from names to networks")
        self._listeners: list[StatusListener] = []
        self.notes: list[str] = []
        per_window = windows is not None and windows.attack == "window" and not isinstance(attack, Given)
        self.attack = PerWindow(attack, windows) if windows and per_window else attack
        self.quantize, self.seed, self.exact, self.windows = quantize, seed, exact, windows
        self.on_error, self.clean_cache = check_on_error(on_error), clean_cache
        self.source = with_windows(as_segmentation_model(source), windows)
        networks = identify_networks(self.source, targets or {}, windows, probe_size)
        self.source_name, self.white_box = networks.source_name, networks.white_box
        self.source_title = self.source.name  # what tables and folders call the source
        self.scored = nn.ModuleList(networks.scored)
        self.num_classes, self.doubts = networks.num_classes, networks.doubts
        self.target_labels = check_target_labels(target_labels, self.num_classes)
        if target_labels is not None:
            self.attack.check_targetable()
        attack.check_model(self.source)
        self.curve = None if curve_every is None else StepCurve.of(self.attack, curve_every)
        freeze(self)
        if not takes_given(attack):
            with without_engines(self.source), left_out_told_to(self.notes.append):
                attack.try_source(self.source, noise(probe_size))
            found = check_attackable(self.source, self.source_name, probe_size)
            self.doubts += [doubt for doubt in found if doubt not in self.doubts]
        self.engine, self.precision, self.probe_size = engine, precision, probe_size
        self._fast = FastNetworks(networks.scored, engine, precision, weak_callback(self._say), exact, probe_size)
        self._memory = PeakMemory()
        self._positions = Positions()
        self._attempts = Attempts(self.on_error, largest=1 if exact else None)

    def _say(self, status: str) -> None:
        for listener in self._listeners:
            listener.on_attack_status(status)

    def _note(self, message: str) -> None:
        if message not in self.notes:
            self.notes.append(message)
            _warn(message)

    @property
    def target_names(self) -> list[str]:
        """Names of the scored networks in the order of `scored`; `white_box` tells which is the source."""
        return list(self.white_box)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The scored networks by name."""
        return dict(zip(self.white_box, self.scored, strict=True))

    @property
    def abstains(self) -> bool:
        """Whether a scored network may abstain, see `models.Smoothed`."""
        return any(getattr(network, "abstains", False) for network in self.scored)

    @property
    def largest_batch(self) -> int | None:
        """Most images that are attacked at once: one with `exact`, what fitted once memory ran out; None: any."""
        return self._attempts.largest

    @property
    def partners_seed(self) -> int | None:
        """Seed by which the data chooses `partners`, the images that the attack mixes in; None if it mixes none."""
        return self.seed if self.attack.mixes else None

    def settings(self) -> dict[str, Any]:
        """What decides on the results, as plain values; each network by a hash of its weights.

        Code of the user's own has a hash each under `code`, see `user_code`: of the `attack`, and of the `networks`.
        """
        return self._settings(lambda _, network: fingerprint(network)) | self._code()

    def _code(self) -> dict[str, Any]:
        own = {"attack": user_code([self.attack]), "networks": user_code([self.source, *self.scored])}
        return {"code": own} if any(own.values()) else {}

    def earlier_settings(self) -> Iterator[dict[str, Any]]:
        """`settings` as earlier versions may have written them.

        The last of them had narrower hashes of networks; those before did not tell the code of networks from that of
        the attack, or had no `code`. At first the hashes of networks depended on names and on the engine.

        `predict` called networks by their own names, `study` by those of the study. Engines had left marks in networks:
        at first the number of pixels from which they were used, later whether one was chosen. The last of these
        versions had no names in its hashes.
        """
        current = self._settings(lambda _, network: narrower_fingerprint(network))
        yield current | self._code()
        yield current | {"code": user_code([self.attack, self.source, *self.scored])}
        yield current
        fast_from = WORTH_REWRITING if self.engine is None and self.precision == "float32" else 0
        chosen: dict[str, object] = {} if self.engine is None else {"is_worth": None}
        for noted in ({"fast_from": fast_from}, chosen):
            for own in (True, False):
                yield self._settings(partial(_earlier, noted=noted, own_name=own))
        yield self._settings(partial(_earlier, noted=chosen, named=False))

    def _settings(self, mark: Callable[[str, nn.Module], str]) -> dict[str, Any]:
        return {
            "attack": self.attack.settings(),
            "source": {self.source_name: mark(self.source_name, self.source)},
            "targets": {name: mark(name, network) for name, network in self.networks.items()},
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
        """Raise `ModelError` if the data's classes are not as many as a network's, or named in another order."""
        if classes is None:
            return
        if len(classes) != self.num_classes:
            raise ModelError(
                f"source '{self.source.name}' has {self.num_classes} classes, but the data has {len(classes)} "
                f"({', '.join(classes[:4])}{', ...' * (len(classes) > 4)}); "
                f"{class_advice(len(classes), self.num_classes)}"
            )
        for name, network in self.networks.items():
            check_class_order(name, as_segmentation_model(network), classes)

    def configure_callbacks(self) -> list[Callback]:
        """Prepare the trainer before anything is set up; adds no callback.

        The data module of an earlier `predict` goes, if this one was given a `DataLoader`: Lightning would keep it, and
        everybody would take its photos and classes for those of this run. A callback that arranges the others
        (`RunFolder`) does so.
        """
        if self.trainer.predict_loop._data_source.instance is not self.trainer.datamodule:  # type: ignore[attr-defined]
            self.trainer.datamodule = None  # type: ignore[attr-defined]
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
        check_precision(self.precision, self.trainer.strategy.root_device)
        if self.exact:
            check_exact(self.engine, self.trainer.strategy.root_device)
        self.check_classes(of_data(self.trainer, "classes"))
        if (set_partners := of_data(self.trainer, "set_partners")) is not None:
            set_partners(self.partners_seed)
        sizes = of_data(self.trainer, "image_sizes", lambda: None)()
        self._fast.expect(None if sizes is None else self._expected(sizes))
        self._positions.begin()
        for note in self.notes:
            _warn(note)
        self._listeners = [callback for callback in self.trainer.callbacks if isinstance(callback, StatusListener)]  # type: ignore[attr-defined]
        # Lightning decides on the mode after this hook and before the loop; later is too late.
        if self.trainer.predict_loop.inference_mode:
            rank_zero_info("Attacks need gradients: inference mode is switched off for this run.")
            self.trainer.predict_loop.inference_mode = False

    def _expected(self, sizes: Mapping[tuple[int, int], int]) -> Expected:
        """The passes that will come, by which engines are chosen."""
        return Expected(shown(sizes, self.windows), lambda: self._passes_of_attack, self._passes_of_scoring)

    @cached_property
    def _passes_of_attack(self) -> float:
        """Backward passes of an attacked network for each image; the attack is run on a small one to count them."""
        return expected_passes(self.attack, self.source)()

    def image_costs(self, sizes: Iterable[tuple[int, int]]) -> list[float]:
        """What attacking and scoring images of these heights and widths costs, in comparison with each other.

        It is what the networks compute in all passes, counted. A backward pass counts as two forward passes. An
        image without a size, (0, 0), costs nothing.
        """
        passes = [(network, float(self._passes_of_scoring)) for network in self.scored]
        cost = size_cost([*passes, (self.source, 3 * self._passes_of_attack)], self.probe_size)
        looks = (shown({size: 1} if all(size) else {}, self.windows) for size in sizes)
        return [sum(count * cost.of(*shape) for shape, count in look.items()) for look in looks]

    @property
    def _passes_of_scoring(self) -> int:
        """Forward passes of each network for each image: clean, adversarial, and after single steps."""
        return 2 if self.curve is None else 1 + len(self.curve.steps)

    def teardown(self, stage: str) -> None:
        self._listeners = []

    def predict_step(self, batch: Batch, batch_idx: int) -> AttackOutput:
        """Attack a batch and score all networks on it.

        Args:
            batch: a `Batch`, images, or the tuple (images, masks).
            batch_idx: number of the batch in this process, from 0.

        Raises:
            BatchError: the batch has another form, or an image of it was there before.
            ImageError: with `on_error="raise"`, an image cannot be attacked or scored.
        """
        trainer = self._running_trainer()
        dtype = cast(torch.dtype, self.dtype)  # float64 with trainer.precision=64-true
        given = as_batch(
            batch, self.num_classes, lambda count: self._positions.of_batch(trainer, batch_idx, count), dtype
        )
        skipped = [*given.get("skipped", ())]
        outputs: list[AttackOutput] = []
        if "image" in given:
            if trainer is not None:
                self._positions.check_unique(given)
            with self._exactly():
                outputs = self._attempts(given, self._batch_attack(), skipped)
        output = merge(outputs) if outputs else AttackOutput.empty(self.target_names, ())
        output.skipped = skipped
        return output

    def _running_trainer(self) -> Trainer | None:
        """The trainer whose prediction this is; None if `predict_step` was called by hand."""
        try:
            return self.trainer if self.trainer.predicting else None
        except RuntimeError:  # never attached to one
            return None

    def _exactly(self) -> AbstractContextManager[None]:
        """Inside the `with` block, results are computed as `exact` says."""
        if not self.exact:
            return nullcontext()
        check_exact(self.engine, self.device)
        return exact_on(self.device)

    def _batch_attack(self) -> BatchAttack:
        """What happens to a batch, as the module is set by now."""
        engine = self.engine or self._passes_of_scoring  # which decide on the engine
        return BatchAttack(
            attack=self.attack,
            source=self.source,
            source_name=self.source_name,
            networks=self.networks,
            num_classes=self.num_classes,
            target_labels=self.target_labels,
            quantize=self.quantize,
            seed=self.seed,
            curve=self.curve,
            abstains=self.abstains,
            on_error=self.on_error,
            lends=self._lends,
            clean_cache=self.clean_cache,
            run_by=(engine, repr(self.windows), autocast_is_on(self.device.type), self.exact),
            fast=self._fast,
            memory=self._memory,
            say=self._say,
            note=self._note,
        )

    @property
    def _lends(self) -> bool:
        """Whether the attack may be given the clean logits that the source is scored by: they are what it would see."""
        return self.attack.clean_passes > 0 and self.precision == "float32" and not hasattr(self.source, "members")


def _warn(note: str) -> None:
    """Warn, also if an earlier run of this process has warned in the same words."""
    with warnings.catch_warnings():  # forgets what was said; filters stay
        rank_zero_warn(note)


def _earlier(
    name: str, network: nn.Module, noted: Mapping[str, object], own_name: bool = True, named: bool = True
) -> str:
    """The hash of a network in a run of an earlier version, by its own name or by that which the run calls it."""
    return earlier_fingerprint(network, None if own_name else name, noted, named)
