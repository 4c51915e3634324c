"""Segmentation networks of torchvision."""

from __future__ import annotations

from pathlib import Path

from torchvision import models

from lightning_attack.models.initial import Initial
from lightning_attack.models.weights import load_weights, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel


class TorchVisionModel(SegmentationModel):
    """`fcn_resnet50`, `deeplabv3_resnet101`, `lraspp_mobilenet_v3_large` and the others of torchvision.segmentation.

    Args:
        model: the builder's name in torchvision.models.segmentation.
        weights: a name of the model's weights enum, such as `COCO_WITH_VOC_LABELS_V1` or `DEFAULT` (downloaded by
            torchvision, with their classes), or a file of trained weights. None leaves the initial values.
        num_classes: number of classes, with a file or without weights.
        aux_loss: whether a file holds the auxiliary classifier too.
        name: name in tables and folders; the default is `model`.
        weights_key: key in the file under which the weights are, such as `state_dict_ema`; None: the usual ones.

    Raises:
        ModelError: unknown model or weights; a file that does not fit.
    """

    _classes_last = False

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        num_classes: int = 21,
        aux_loss: bool = False,
        name: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        known = models.list_models(module=models.segmentation)
        if model not in known:
            raise ModelError(f"torchvision has no segmentation model '{model}'; it has {', '.join(known)}")
        enum = models.get_model_weights(model)
        # The normalisation is the same for all of them; it is read off the weights' own preprocessing.
        preprocessing = enum["DEFAULT"].transforms()
        mean, std = preprocessing.mean, preprocessing.std
        classes: tuple[str, ...] | None = None
        initial: Initial | None = None
        if weights in enum.__members__:
            chosen = enum[weights]
            classes = tuple(chosen.meta["categories"])
            network, num_classes = models.get_model(model, weights=chosen), len(classes)
        else:
            options = {} if model.startswith("lraspp") else {"aux_loss": aux_loss}
            path = _file(weights, list(enum.__members__)) if weights else None
            network = models.get_model(model, weights=None, weights_backbone=None, num_classes=num_classes, **options)
            initial = None if path else Initial(network)
            if path:
                load_weights(network, path, key=weights_key, aux=None if model.startswith("lraspp") else "aux_loss")
        super().__init__(network, num_classes, mean, std, name=name or model)
        self._initial = initial
        if classes:
            self.classes = classes


def _file(weights: str, names: list[str]) -> Path:
    try:
        return weights_path(weights)
    except ModelError as error:
        raise ModelError(f"weights='{weights}' is neither a file nor one of {', '.join(names)}") from error
