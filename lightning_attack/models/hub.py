"""Networks from folders and hub repositories of segmentation_models_pytorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_attack.models.smp import SMPModel
from lightning_attack.models.wrapper import ModelError

# Arguments of smp's constructors that SMPModel sets itself, or that concern what is not loaded.
_NOT_OPTIONS = ("encoder_name", "encoder_weights", "classes", "in_channels", "activation", "aux_params")


class MissingFileError(ModelError):
    """The folder or the repository is there, and it is known not to have the file."""


class SMPHub(SMPModel):
    """A network that `model.save_pretrained(folder)` or `model.push_to_hub(repo)` of smp wrote.

    Source: P. Iakubovskii, "Segmentation Models Pytorch", 2019; the format is that of `PyTorchModelHubMixin` of
    huggingface_hub: `config.json` with the constructor's arguments, `model.safetensors` with the weights. Unlike
    `smp.from_pretrained`, nothing but these two files is read: no pickled weights, and no ImageNet weights of the
    encoder, which would be overwritten. An `activation` is left out, since losses need logits.

    Args:
        folder_or_repo: the folder, or `owner/name` of a repository on the Hugging Face hub (downloaded once).
        mean: mean of each colour in [0, 1]. smp's files do not say it; the default is ImageNet's.
        std: standard deviation of each colour; the default is ImageNet's.
        stride: images are padded to multiples of it.
        revision: branch, tag or commit of a repository; a commit makes a study repeatable.
        name: name in tables and folders; the default is `arch_encoder`.

    Raises:
        ModelError: no such folder or repository, a file is missing, or it is no network of smp for RGB images.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import segmentation_models_pytorch as smp
        >>> with TemporaryDirectory() as folder:
        ...     _ = smp.FPN("tu-test_resnet", encoder_weights=None, classes=4).save_pretrained(folder)
        ...     model = SMPHub(folder)
        >>> model.name, model.num_classes
        ('fpn_test_resnet', 4)
    """

    def __init__(
        self,
        folder_or_repo: str,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        stride: int = 32,
        revision: str | None = None,
        name: str | None = None,
    ) -> None:
        path = hub_file(folder_or_repo, "config.json", revision)
        config = _read_config(path, folder_or_repo)
        if config.get("in_channels", 3) != 3 or config.get("aux_params"):
            raise ModelError(
                f"'{folder_or_repo}' has in_channels={config.get('in_channels', 3)} and "
                f"aux_params={config.get('aux_params')}; expected 3 colours and no classification head. Save it again "
                "without, or write a class that returns the logits alone and name it in SegmentationModel's network"
            )
        super().__init__(
            arch=config["_model_class"].lower(),
            encoder_name=config["encoder_name"],
            num_classes=config.get("classes", 1),
            weights=str(hub_file(folder_or_repo, "model.safetensors", revision)),
            mean=mean,
            std=std,
            stride=stride,
            options={key: value for key, value in config.items() if key[0] != "_" and key not in _NOT_OPTIONS},
            name=name,
        )


def hub_file(folder_or_repo: str, file: str, revision: str | None = None) -> Path:
    """The path of a file of a folder, or of a repository of the Hugging Face hub after its download.

    Raises:
        MissingFileError: the folder or the repository lacks the file.
        ModelError: there is no such folder or repository, or the hub does not answer.

    Example:
        >>> hub_file(".", "no such file")
        Traceback (most recent call last):
            ...
        lightning_attack.models.hub.MissingFileError: folder '.' has no no such file
    """
    if Path(folder_or_repo).is_dir():
        path = Path(folder_or_repo) / file
        if not path.is_file():
            raise MissingFileError(f"folder '{folder_or_repo}' has no {file}")
        return path
    # Here, for it takes half a second.
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(folder_or_repo, file, revision=revision))
    except LocalEntryNotFoundError as error:  # it is an EntryNotFoundError too, but knows nothing of the repository
        # The cache remembers what the repository lacked when the hub could be reached.
        if try_to_load_from_cache(folder_or_repo, file, revision=revision) is _CACHED_NO_EXIST:
            raise MissingFileError(f"repository '{folder_or_repo}' has no {file}") from error
        raise ModelError(_out_of_reach(folder_or_repo, error)) from error
    except EntryNotFoundError as error:
        raise MissingFileError(f"repository '{folder_or_repo}' has no {file}") from error
    except (HFValidationError, OSError) as error:  # OSError: all answers of the hub
        raise ModelError(
            f"no folder '{folder_or_repo}', and no such repository on the hub ({_first_line(error)})"
        ) from error
    except HTTPError as error:  # what is no OSError is no answer: a connection that breaks, a proxy
        raise ModelError(_out_of_reach(folder_or_repo, error)) from error


def hf_hub_download(repo: str, file: str, revision: str | None) -> str:
    """The path of a file of a repository of the Hugging Face hub, downloaded unless it is in the cache."""
    from huggingface_hub import hf_hub_download as download

    return download(repo, file, revision=revision)


def _out_of_reach(folder_or_repo: str, error: Exception) -> str:
    return (
        f"no folder '{folder_or_repo}', and the hub cannot be reached for a repository of that name "
        f"({_first_line(error)})"
    )


def _classes() -> set[str]:
    """Names of smp's networks; `SMPModel` knows them in lower case."""
    import segmentation_models_pytorch as smp  # here, for it takes a second

    parts = [part for part in vars(smp).values() if isinstance(part, type)]
    return {part.__name__ for part in parts if issubclass(part, smp.base.SegmentationModel)}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _read_config(path: Path, folder_or_repo: str) -> dict[str, Any]:
    """The constructor's arguments, and the class's name under `_model_class`."""
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"config.json of '{folder_or_repo}' is no JSON ({error})") from error
    known = _classes()
    if not isinstance(config, dict) or config.get("_model_class") not in known or "encoder_name" not in config:
        raise ModelError(
            f"config.json of '{folder_or_repo}' describes no network of smp: _model_class is "
            f"{config.get('_model_class') if isinstance(config, dict) else None}; expected one of "
            f"{', '.join(sorted(known))}, and an encoder_name. Folders of transformers are for HuggingFaceModel"
        )
    return config
