"""Semantic segmentation networks of Hugging Face's transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_attack.common.pixels import LEVELS
from lightning_attack.engine.autocast import full_precision
from lightning_attack.models.file_kinds import foreign_kind
from lightning_attack.models.hub import MissingFileError, hub_file
from lightning_attack.models.wrapper import ModelError, SegmentationModel

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# `model_type` of the networks that return queries with a class and a mask each. OneFormer does so too, but takes a task
# next to the image.
_MASK_CLASSIFIERS = ("mask2former", "maskformer")
# What a checkpoint may lack: neither takes part in a prediction.
_NOT_NEEDED = ("num_batches_tracked", "criterion.empty_weight")
# A smaller sum of terms up to 1 may have lost terms that count in float32, or have an inverse (the gradient of its
# logarithm) that overflows.
_LEAST_SUM = 1e-20


class HuggingFaceModel(SegmentationModel):
    """Mask2Former, MaskFormer, and SegFormer, UPerNet, DPT, BEiT and all else of `AutoModelForSemanticSegmentation`.

    Source: T. Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020, arXiv 1910.03771.
    Needs `pip install transformers`. Only safetensors weights are read and no code of a repository is run. The size
    that `preprocessor_config.json` names is not applied: photos keep theirs. Logits at a quarter of the size are
    resized by `SegmentationModel`.

    Mask2Former (B. Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
    arXiv 2112.01527) and MaskFormer (B. Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic
    Segmentation", NeurIPS 2021, arXiv 2107.06278) have queries with a class and a mask each instead of logits; the
    logits are the logarithm of the scores of their semantic map (`log_scores`), so that softmax gives the scores
    divided by their sum and argmax the classes of transformers' `post_process_semantic_segmentation`. These logits are
    resized, where transformers resizes the scores and, for Mask2Former, before that the masks to 384 x 384: at full
    size the maps may differ along edges.

    Args:
        path: a folder that `save_pretrained` wrote, or `owner/name` of a repository on the hub.
        num_classes: what the network must have; None = what it has. A network with one label is binary: two classes.
        mean: mean of each colour in [0, 1]; None reads it from `preprocessor_config.json`, or takes ImageNet's without.
        std: standard deviation of each colour; None likewise.
        stride: images are padded to multiples of it.
        name: name in tables and folders; the default is the last part of `path`.

    Raises:
        ModelError: transformers is not installed, there is no such network, its weights are not those of a whole
            segmentation network, or it takes its images in a way that is not supported.
    """

    _classes_last = False

    def __init__(
        self,
        path: str,
        num_classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stride: int = 32,
        name: str | None = None,
    ) -> None:
        network, names = _load(path)
        labels = len(names)
        if num_classes not in (None, labels, max(labels, 2)):
            raise ModelError(
                f"'{path}' has {labels} classes, but num_classes is {num_classes}; leave num_classes out, or map the "
                "classes with ClassMap"
            )
        if mean is None or std is None:
            read_mean, read_std = read_normalisation(path)
            mean, std = mean or read_mean, std or read_std
        super().__init__(network, labels, mean, std, stride, name or path.rstrip("/").rpartition("/")[2])
        self.classes = ("", *names) if labels == 1 else names  # of one logit, which tells its class from all others


class _SemanticMap(nn.Module):
    """A network of transformers with queries, as one that returns the logits of a semantic map at the masks' size."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        # transformers 5.23 looks for these states where its configuration does not make it keep them: MaskFormer with
        # use_auxiliary_loss, Mask2Former without.
        output = self.network(images, output_hidden_states=True)
        return log_scores(output.class_queries_logits, output.masks_queries_logits)


def log_scores(classes: Tensor, masks: Tensor) -> Tensor:
    """Logarithm of the scores (B, C, h, w) of the semantic map of queries that have a class and a mask each.

        scores[c, y, x] = sum_q softmax(classes[q])[c] sigmoid(masks[q, y, x])

    Source: B. Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS 2021,
    arXiv 2107.06278, section 3.4. A score that float32 rounds to zero still has its logarithm and a gradient.

    Args:
        classes: logits (B, Q, C + 1) of the queries' classes; the last class is "no object" and has no score.
        masks: logits (B, Q, h, w) of the queries' masks.

    Example:
        >>> classes, masks = torch.tensor([[[0.5, 0.3, 0.2]]]).log(), torch.zeros(1, 1, 1, 1)
        >>> log_scores(classes, masks).exp().flatten()           # 0.5 / 2 and 0.3 / 2
        tensor([0.2500, 0.1500])
        >>> log_scores(classes, masks - 1000).flatten()          # log 0.5 - 1000 and log 0.3 - 1000
        tensor([-1000.6932, -1001.2040])
    """
    dtype = torch.promote_types(masks.dtype, torch.float32)
    with full_precision(masks):  # a product of half precision would lose small scores
        log_class = classes.to(dtype).log_softmax(-1)[..., :-1]
        log_mask = F.logsigmoid(masks.to(dtype))
        # With the largest factor of either side taken out, the sum is a product of matrices: a twentieth of the time of
        # logsumexp, and no tensor with queries, classes and pixels, which for 100 x 150 x 128 x 128 has 1 GB.
        top_class, top_mask = (part.detach().amax(1, keepdim=True) for part in (log_class, log_mask))
        sums = torch.einsum("bqc,bqhw->bchw", (log_class - top_class).exp(), (log_mask - top_mask).exp())
        if bool((sums >= _LEAST_SUM).all()):
            return sums.log() + top_class.transpose(1, 2).unsqueeze(-1) + top_mask
        # A class and a pixel whose best queries differ widely. Checkpoints keep the memory of one class at a time.
        logs = [
            checkpoint(_log_score, log_of_class, log_mask, use_reentrant=False, preserve_rng_state=False)
            for log_of_class in log_class.unbind(2)
        ]
        return torch.stack(logs, 1)


def _log_score(log_class: Tensor, log_mask: Tensor) -> Tensor:
    """Log scores (B, h, w) of one class: of (B, Q) and (B, Q, h, w)."""
    return (log_class[..., None, None] + log_mask).logsumexp(1)


def _load(path: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The network, and the names of its classes, such as `LABEL_0` where it was given none."""
    try:
        import transformers
    except ImportError as error:
        raise ModelError("HuggingFaceModel needs transformers: pip install transformers") from error
    for file in sorted(Path(path).glob("*.safetensors")):
        if found := foreign_kind(file):
            raise ModelError(f"'{file}' is {found}")
    try:
        kind = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        has_queries = kind in _MASK_CLASSIFIERS
        # Asked for by name here, so that what an old version lacks only matters to who wants it.
        name = "AutoModelForUniversalSegmentation" if has_queries else "AutoModelForSemanticSegmentation"
        network, report = getattr(transformers, name).from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises whatever its readers of folders, JSON and weights raise
        raise ModelError(
            f"transformers cannot load '{path}' as a semantic segmentation network ({type(error).__name__}: {error}); "
            "expected a folder or a repository with config.json and model.safetensors"
        ) from error
    # transformers fills what the file lacks with random numbers and only warns: such a network must not be scored.
    lacking = [key for key in sorted(map(str, report["missing_keys"])) if not key.endswith(_NOT_NEEDED)]
    lacking += [str(key) for key in report.get("mismatched_keys", ())]
    if lacking:
        raise ModelError(
            f"'{path}' lacks {len(lacking)} tensors of the network (the first is {lacking[0]}), as an encoder without "
            "a trained segmentation head does; choose one that was trained for semantic segmentation"
        )
    config = network.config
    if has_queries and config.num_labels == 1:
        raise ModelError(f"'{path}' has one class: its semantic map has no background that a pixel could be instead")
    names = tuple(str(getattr(config, "id2label", {}).get(number, "")) for number in range(config.num_labels))
    # Folders in half precision stay so in transformers 5; attacks compute with float32 images.
    return (_SemanticMap(network) if has_queries else network).float(), names


def read_normalisation(path: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation for [0, 1] images from `preprocessor_config.json`; ImageNet's if there is none.

    Pixels of 0 to 255 are multiplied by `rescale_factor` (usually 1/255), then `image_mean` and `image_std` apply;
    with k = 255 rescale_factor this is (x k - mean) / std = (x - mean / k) / (std / k) for x in [0, 1].

    Warns:
        UserWarning: there is no file, or it lacks the numbers, so that ImageNet's are a guess.

    Raises:
        ModelError: the file is damaged or the hub cannot be asked for it, or the network wants its colours in another
            order.

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
    except MissingFileError:
        _warn_of_a_guess(f"'{path}' has no preprocessor_config.json")
        return IMAGENET
    except ModelError as error:  # a guess would silently change all results, and only while the hub is out of reach
        raise ModelError(
            f"preprocessor_config.json of '{path}' is not to be had: {error}; give mean and std"
        ) from error
    try:
        config = json.loads(file.read_text())
        k = LEVELS * config.get("rescale_factor", 1 / LEVELS) if config.get("do_rescale", True) else LEVELS
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
    lacking = [key for key in ("image_mean", "image_std") if normalises and key not in config]
    if lacking:
        _warn_of_a_guess(f"preprocessor_config.json of '{path}' has no {' and no '.join(lacking)}")
    return scaled


def _warn_of_a_guess(reason: str) -> None:
    warnings.warn(
        f"{reason}: ImageNet's mean and standard deviation are taken, which may not be those it was trained with. Give "
        f"mean and std to say which they are; ImageNet's are mean={list(IMAGENET[0])}, std={list(IMAGENET[1])}",
        UserWarning,
        stacklevel=4,  # the line that builds HuggingFaceModel
    )
