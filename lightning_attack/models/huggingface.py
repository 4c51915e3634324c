"""Semantic segmentation networks of Hugging Face's transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lightning_attack.models.hub import hub_file
from lightning_attack.models.wrapper import ModelError, SegmentationModel

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HuggingFaceModel(SegmentationModel):
    """SegFormer, UPerNet, DPT, BEiT and all else that `transformers.AutoModelForSemanticSegmentation` loads.

    Source: T. Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020, arXiv 1910.03771.
    Needs `pip install transformers`. Only safetensors weights are read and no code of a repository is run. The size
    that `preprocessor_config.json` names is not applied: photos keep theirs. Logits at a quarter of the size are
    resized by `SegmentationModel`.

    Args:
        path: a folder that `save_pretrained` wrote, or `owner/name` of a repository on the hub.
        num_classes: what the network must have; None = what it has.
        mean: mean of each colour in [0, 1]; None reads it from `preprocessor_config.json`, or takes ImageNet's without.
        std: standard deviation of each colour; None likewise.
        stride: images are padded to multiples of it.
        name: name in tables and folders; the default is the last part of `path`.

    Raises:
        ModelError: transformers is not installed, there is no such network, its weights are not those of a whole
            segmentation network, or it takes its images in a way that is not supported.
    """

    def __init__(
        self,
        path: str,
        num_classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stride: int = 32,
        name: str | None = None,
    ) -> None:
        network = _load(path)
        labels = network.config.num_labels
        if num_classes not in (None, labels):
            raise ModelError(
                f"'{path}' has {labels} classes, but num_classes is {num_classes}; leave num_classes out, or map the "
                "classes with ClassMap"
            )
        if mean is None or std is None:
            read_mean, read_std = read_normalisation(path)
            mean, std = mean or read_mean, std or read_std
        super().__init__(network, labels, mean, std, stride, name or path.rstrip("/").rpartition("/")[2])


def _load(path: str) -> Any:
    try:
        from transformers import AutoModelForSemanticSegmentation
    except ImportError as error:
        raise ModelError("HuggingFaceModel needs transformers: pip install transformers") from error
    try:
        network, report = AutoModelForSemanticSegmentation.from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises whatever its readers of folders, JSON and weights raise
        raise ModelError(
            f"transformers cannot load '{path}' as a semantic segmentation network ({type(error).__name__}: {error}); "
            "expected a folder or a repository with config.json and model.safetensors"
        ) from error
    # transformers fills what the file lacks with random numbers and only warns: such a network must not be scored.
    lacking = [key for key in sorted(map(str, report["missing_keys"])) if not key.endswith("num_batches_tracked")]
    lacking += [str(key) for key in report.get("mismatched_keys", ())]
    if lacking:
        raise ModelError(
            f"'{path}' lacks {len(lacking)} tensors of the network (the first is {lacking[0]}), as an encoder without "
            "a trained segmentation head does; choose one that was trained for semantic segmentation"
        )
    return network


def read_normalisation(path: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation for [0, 1] images from `preprocessor_config.json`; ImageNet's if there is none.

    Pixels of 0 to 255 are multiplied by `rescale_factor` (usually 1/255), then `image_mean` and `image_std` apply;
    with k = 255 rescale_factor this is (x k - mean) / std = (x - mean / k) / (std / k) for x in [0, 1].

    Raises:
        ModelError: the file is damaged, or the network wants its colours in another order.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     text = '{"do_rescale": false, "image_mean": [51, 102, 153], "image_std": [255, 255, 255]}'
        ...     _ = (Path(folder) / "preprocessor_config.json").write_text(text)
        ...     read_normalisation(folder)
        ([0.2, 0.4, 0.6], [1.0, 1.0, 1.0])
    """
    try:
        file = hub_file(path, "preprocessor_config.json")
    except ModelError:
        return IMAGENET
    try:
        config = json.loads(file.read_text())
        k = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255
        normalises = config.get("do_normalize", True)
        mean = config.get("image_mean", IMAGENET[0]) if normalises else (0.0, 0.0, 0.0)
        std = config.get("image_std", IMAGENET[1]) if normalises else (1.0, 1.0, 1.0)
        scaled = [value / k for value in mean], [value / k for value in std]
        flips = config.get("do_flip_channel_order", False)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"preprocessor_config.json of '{path}' is damaged ({error}); give mean and std") from error
    if flips:
        raise ModelError(
            f"'{path}' wants blue before red (do_flip_channel_order), which is not supported; write a class that flips "
            "the colours and name it in SegmentationModel's network"
        )
    return scaled
