"""`BatchAttack`: what happens to a batch: clean predictions, attack, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.given import attack_of_batch, takes_given
from lightning_attack.attacks.random import image_seeds
from lightning_attack.attacks.source_transforms.source import left_out_told_to
from lightning_attack.common.labels import ABSTAINED, IGNORE_INDEX
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.models.wrapper import SegmentationModel
from lightning_attack.predict.batches import Batch, given_eps
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.cost import PeakMemory, clock, count_passes
from lightning_attack.predict.global_draws import drawn_globally
from lightning_attack.predict.output import AttackOutput
from lightning_attack.predict.recovery import OnError, finite, refuse
from lightning_attack.predict.scoring import Scorer
from lightning_attack.predict.step_curve import StepCurve
from lightning_attack.predict.steps import AttackStep, CleanStep, to_8_bits
from lightning_attack.predict.target_labels import wanted_classes


@dataclass(frozen=True)
class BatchAttack:
    """The three steps for a batch: clean predictions, attack, scores.

    Attributes:
        source, source_name: the network that is attacked, and its name among `networks`.
        networks: those that are scored, by name.
        attack, num_classes, target_labels, quantize, seed, curve, abstains, on_error, clean_cache: as in
            `AttackModule`.
        lends: whether the attack may be given the clean logits that the source is scored by.
        run_by: what decides on the clean predictions of a network besides the network, for `clean_cache`.
        fast: runs the networks.
        memory: measures the memory of the attack.
        say: called with a few words for each part of the work.
        note: called with what the attack has to leave out, and what makes its results hard to repeat.
    """

    attack: Attack
    source: SegmentationModel
    source_name: str
    networks: Mapping[str, nn.Module]
    num_classes: int
    target_labels: int | str | None
    quantize: bool
    seed: int
    curve: StepCurve | None
    abstains: bool
    on_error: OnError
    lends: bool
    clean_cache: CleanPredictions | None
    run_by: tuple[object, ...]
    fast: FastNetworks
    memory: PeakMemory
    say: Callable[[str], None]
    note: Callable[[str], None]

    def __call__(self, batch: Batch) -> AttackOutput:
        """Clean predictions, attack, scores."""
        attack = attack_of_batch(self.attack, batch.get("adversarial"), given_eps(batch))
        score = Scorer(self.networks, self.source_name, batch["name"], self.on_error)
        clean = self._predict_clean(batch, attack, score)
        attacked = self._attack(batch, attack, clean)
        return self._score(batch, clean, attacked, score)

    def _predict_clean(self, batch: Batch, attack: Attack, score: Scorer) -> CleanStep:
        """What all networks predict on the clean images, and the labels that follow from it."""
        images = batch["image"]
        self.say("clean prediction")
        seconds = -clock(images)
        logits: list[Tensor] = []
        keep = {self.source_name: logits} if self.lends or self._takes_least_likely else {}
        preds = {name: self._clean_classes(name, batch, score, keep.get(name)) for name in self.networks}
        seconds += clock(images)
        labels = batch.get("mask", preds[self.source_name].where(preds[self.source_name] != ABSTAINED, IGNORE_INDEX))
        wanted = wanted_classes(self.target_labels, logits, batch, labels)
        return CleanStep(preds, labels, wanted, logits if self.lends else [], seconds)

    @property
    def _takes_least_likely(self) -> bool:
        return self.target_labels == "least_likely"

    def _clean_classes(self, name: str, batch: Batch, score: Scorer, keep: list[Tensor] | None) -> Tensor:
        """The classes that a network predicts on the clean images; from the cache if it knows all of them.

        Args:
            keep: takes the logits, which the cache does not know; None: nobody needs them.
        """

        def predict() -> Tensor:
            return score(name, batch["image"], keep)

        if self.clean_cache is None or keep is not None or "digest" not in batch:
            return predict()
        network = self.networks[name], *self.run_by
        classes = self.clean_cache.classes(network, batch["digest"], predict, lambda row: name in score.failed[row])
        return classes.to(batch["image"].device)

    def _attack(self, batch: Batch, attack: Attack, clean: CleanStep) -> AttackStep:
        """The adversarial images as they are saved, and what they cost."""
        images, targeted = batch["image"], clean.target_labels is not None
        figures: list[dict[str, Tensor]] = []
        watched = None if self.curve is None else self.curve.watch()

        def log(step: int, values: Mapping[str, Tensor]) -> None:
            figures.append(dict(values))
            self.say(f"{attack.name} step {step + 1}")

        def drew() -> None:
            self.note(
                f"while {attack.name} ran, numbers were drawn from a global random generator (torch, random or numpy). "
                "If it was the attack or its source, results depend on batch size, on ranks and on where a run was "
                "resumed; input transforms are given `draws`, and source transforms a `run`, that have numbers of each "
                "image"
            )

        with (
            self.fast.attacking(images),
            count_passes(self.source) as passes,
            left_out_told_to(self.note),
            drawn_globally(images.device, drew),
        ):
            self.memory.begin(images.device)
            seconds = -clock(images)
            adversarial = attack(
                self.source,
                images,
                clean.labels if clean.target_labels is None else clean.target_labels,
                image_seeds(self.seed, batch["index"]),
                log=log,
                targeted=targeted,
                region=batch.get("region"),
                partners=batch.get("partners"),
                watch=watched,
                clean_logits=clean.logits[0] if clean.logits else None,
            )
            seconds += clock(images)
            memory = self.memory.end(images.device)
        # Logits that were computed for the scores, and lent to the attack or needed for its target: part of its price.
        looks = max(attack.clean_passes if clean.logits else 0, int(self._takes_least_likely))
        passes["forward"] += looks * len(images) * len(getattr(self.source, "members", [self.source]))
        if clean.logits:
            memory = None if memory is None else memory + clean.logits[0].nbytes
            clean.logits.clear()
        # The sign of NaN is NaN, and so is all that follows from it.
        of_gradients = f"the gradients of '{self.source_name}' are NaN"
        reason = "the adversarial image holds NaN or infinite values" if takes_given(attack) else of_gradients
        refuse(~finite(adversarial), batch["name"], reason)
        if self.quantize:
            adversarial = to_8_bits(attack, images, adversarial)
        count = len(images)
        return AttackStep(
            attack,
            adversarial,
            watched,
            figures,
            {kind: number / count for kind, number in passes.items()},
            seconds,
            None if memory is None else memory / count,
        )

    def _score(self, batch: Batch, clean: CleanStep, attacked: AttackStep, score: Scorer) -> AttackOutput:
        """What all networks predict on the adversarial images, and after single steps if there is a curve."""
        images, adversarial = batch["image"], attacked.images
        seconds = -clock(images)
        preds: dict[str, dict[str, Tensor]] = {}
        unchanged = torch.equal(adversarial, images)  # as after `NoAttack`: scored already
        for name in self.networks:
            self.say(f"scoring {name}")
            preds[name] = {
                "clean": clean.preds[name],
                "adversarial": clean.preds[name] if unchanged else score(name, adversarial),
            }
        curve = None
        if attacked.watched is not None:
            self.say("scoring single steps")
            # A target that fails at a step is left out as a whole: the curve ends in the figure of the table.
            curve = attacked.watched.count(
                score,
                lambda one: attacked.attack.quantize(images, one) if self.quantize else one,
                {name: both["adversarial"] for name, both in preds.items()},
                clean.labels,
                self.num_classes,
                self.abstains,
            )
        seconds += clock(images)
        return AttackOutput(
            index=batch["index"],
            name=batch["name"],
            digest=batch.get("digest", [""] * len(images)),
            image=images,
            adversarial=adversarial,
            labels=clean.labels,
            target_labels=clean.target_labels,
            region=batch.get("region"),
            preds=preds,
            curve=curve,
            failed=score.failed,
            skipped=[],
            figures=attacked.figures,
            passes=attacked.passes,
            seconds=attacked.seconds,
            scoring=clean.seconds + seconds,
            memory=attacked.memory,
            labels_predicted="mask" not in batch,
        )
