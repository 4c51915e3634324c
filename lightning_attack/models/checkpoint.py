"""`load_checkpoint`: the network of a checkpoint that `fit` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from lightning_attack.models.functions import accept_functions
from lightning_attack.models.smp import SMPModel, TrainedModel
from lightning_attack.models.weights import CLASSES, RECIPE, load_weights, read_weights, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model

# A SegmentationTask holds a SegmentationModel, which holds the network.
_PREFIX = "network.network."


def load_checkpoint(ckpt: str, config: str | None = None) -> tuple[SegmentationModel, tuple[str, ...] | None]:
    """The network of a file that `fit` wrote, and its class names where the file has them.

    A Lightning checkpoint of `SegmentationTask` holds weights under `network.network.`. What network they belong to is
    taken from, in this order,

    1. `config`;
    2. the checkpoint's own entry `recipe`: the arguments of `SMPModel`;
    3. the run's `config.yaml`, which `fit` writes beside the folder of the checkpoints: its `model.network`.

    A configuration is a program: it can name any class, so use only those that you trust. The checkpoint itself is read
    without running pickled code.

    Args:
        ckpt: a `.ckpt` file, or a `weights.safetensors` that `fit` or `export` wrote (or `embedded:NAME`), which knows
            its network.
        config: a configuration with `model.network`.

    Raises:
        ModelError: no such file, no checkpoint of `fit`, nothing says which network it is, or the weights do not fit.
    """
    path = weights_path(ckpt)
    if path.suffix == ".safetensors":
        trained = TrainedModel(ckpt)
        return trained, trained.classes
    if not any(name.startswith(_PREFIX) for name in read_weights(path)):
        raise ModelError(
            f"'{ckpt}' is no checkpoint of fit: none of its tensors is called {_PREFIX}*. Plain weights are loaded by "
            "SMPModel or TorchVisionModel"
        )
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if config is None and isinstance(content.get(RECIPE), dict):
        model = _from_recipe(content[RECIPE], ckpt)
    else:
        model = _from_config(_config_of(path) if config is None else Path(config))
    load_weights(model.network, path)
    classes = content.get(CLASSES)
    return model, None if classes is None else tuple(classes)


def _from_recipe(recipe: dict[str, Any], ckpt: str) -> SegmentationModel:
    try:
        return SMPModel(**recipe)
    except TypeError as error:
        raise ModelError(f"'{ckpt}' was written by another version of this program ({error})") from error


def _config_of(ckpt: Path) -> Path:
    for folder in (ckpt.parent, ckpt.parent.parent):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise ModelError(
        f"'{ckpt}' does not say which network its weights belong to, and there is no config.yaml in its folder or the "
        "one above; name the run's configuration (config) or use the run's weights.safetensors"
    )


def _from_config(path: Path) -> SegmentationModel:
    """The network that `model.network` of a configuration describes."""
    try:
        network = yaml.safe_load(path.read_text())["model"]["network"]
        network = {"class_path": network} if isinstance(network, str) else network
        name, arguments = network["class_path"].rpartition(".")[2], dict(network.get("init_args") or {})
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"'{path}' is no configuration with model.network ({type(error).__name__}: {error})"
        ) from error
    # The checkpoint's weights replace these; fetching them first could only fail.
    arguments.pop("encoder_weights", None)
    if name in ("SMPModel", "SemSegModel"):
        arguments.pop("weights", None)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "network")
    try:
        parsed = _parsed(parser, {"network": {**network, "init_args": arguments}})
        return as_segmentation_model(parser.instantiate(parsed).network)
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        raise ModelError(f"model.network of '{path}' cannot be built: {error}") from error


def _parsed(parser: ArgumentParser, config: dict[str, Any]) -> Any:
    """Parse, again as long as the parser refuses a function that only lacks its annotation."""
    while True:
        try:
            return parser.parse_object(config)
        except ArgumentError as error:
            if not accept_functions(str(error)):
                raise
