"""`Defended`: a network behind input defences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from lightning_attack.models.defences import Defence, DefendedView, Undo, unmoved
from lightning_attack.models.draws import draws_for
from lightning_attack.models.fingerprint import simple_settings
from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model, with_windows


class Defended(SegmentationModel):
    """A network that is shown images only after one or more defences, one after another.

    Where defences give several views, the network's probabilities are averaged, after the logits of each have been
    brought back to the places of the image: logits = log mean_v softmax(logits of view v).

    What is random in a defence depends on `seed` and on the image's own values alone, so that results do not depend on
    batches or processes, and the same image is defended in the same way each time.

    It is a target. Attacks need gradients, which most defences do not have; as a source it is refused, unless
    `straight_through` is set: then the gradient of a defence that does not move pixels is taken to be that of the
    identity (backward pass differentiable approximation, A. Athalye et al., ICML 2018, arXiv 1802.00420). Such a source
    is attacked through the defence, which says more about its worth than transfer does.

    Args:
        network: the network, on [0, 1] images.
        defences: from the image to the network, one or more.
        seed: of what is random.
        straight_through: whether gradients pass as said above.
        name: name in tables and folders; the default is made of the network's and of the defences' names.

    Raises:
        ModelError: there are no defences, or gradients are asked for that do not exist.

    Example:
        >>> from lightning_attack.models.defences import BitDepth
        >>> model = Defended(nn.Identity(), [BitDepth(1)])
        >>> model.name, model(torch.full((1, 3, 1, 1), 0.7)).flatten()
        ('identity_bit_depth', tensor([1., 1., 1.]))
    """

    _classes_last = False
    _one_is_binary = False

    def __init__(
        self,
        network: nn.Module,
        defences: list[Defence],
        seed: int = 0,
        straight_through: bool = False,
        name: str | None = None,
    ) -> None:
        if not defences:
            raise ModelError("Defended needs one or more defences, such as JPEG")
        model = as_segmentation_model(network)
        names = [SegmentationModel(defence).name for defence in defences]
        behind = _Behind(model, defences, seed, straight_through)
        super().__init__(behind, model.num_classes, name=name or "_".join([model.name, *names]))
        self.classes = model.classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W) in [0, 1]. Windows are the network's, behind the defences."""
        inner: SegmentationModel = self.network.model  # type: ignore[assignment]
        # Only then, because hashes of networks know whether it was set.
        if any(part.windows != self.windows for part in getattr(inner, "members", [inner])):
            with_windows(inner, self.windows)
        return self._run(images)

    @property
    def defence(self) -> dict[str, object]:  # type: ignore[override]
        """The defences with their settings, see `SegmentationModel.defence`."""
        behind: _Behind = self.network  # type: ignore[assignment]
        parts = [{"class": type(one).__name__, **simple_settings(one)} for one in behind.defences]
        return {"seed": behind.seed, "parts": parts}

    @property
    def undefended(self) -> SegmentationModel:  # type: ignore[override]
        """The network that is shown the images in the end."""
        return self.network.model  # type: ignore[return-value]


class _Behind(nn.Module):
    """The network behind its defences."""

    def __init__(
        self, model: SegmentationModel, defences: Sequence[Defence], seed: int, straight_through: bool
    ) -> None:
        super().__init__()
        self.model, self.defences = model, nn.ModuleList(defences)
        self.seed, self.straight_through = seed, straight_through

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled() and not self.straight_through:
            raise ModelError(
                f"'{self.model.name}' is behind defences, through which no gradient is defined: it can be a target, "
                "but no source\nattack the network without Defended, or set straight_through: true"
            )
        return torch.cat([self._one(image) for image in images])

    def _one(self, image: Tensor) -> Tensor:
        found = []
        for view, undos in self._views(image):
            logits = self.model(view[None])
            for undo in reversed(undos):
                logits = undo(logits)
            found.append(logits)
        if len(found) == 1:
            return found[0]
        return torch.stack([logits.log_softmax(1) for logits in found]).logsumexp(0) - torch.tensor(len(found)).log()

    def _views(self, image: Tensor) -> list[tuple[Tensor, list[Undo]]]:
        """What the network is shown, each with its way back."""
        draws = draws_for(image, self.seed)

        def defended(views: list[tuple[Tensor, list[Undo]]], defence: nn.Module) -> list[tuple[Tensor, list[Undo]]]:
            return [
                (self._passing(before, after), [*undos, after.undo])
                for before, undos in views
                for after in defence.views(before, draws)  # type: ignore[operator]
            ]

        return reduce(defended, self.defences, [(image, [])])

    def _passing(self, before: Tensor, after: DefendedView) -> Tensor:
        """The view, through which a gradient passes as through the identity where it has none or a poor one."""
        if not (self.straight_through and before.requires_grad and before.shape == after.image.shape):
            return after.image
        return before + (after.image - before).detach() if after.undo is unmoved else after.image
