"""Write a network to one file that `predict` takes as source or target, with its name, classes and sizes inside."""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.common.atomic import atomic_write, check_folder
from lightning_attack.models.checkpoint import load_checkpoint
from lightning_attack.models.exported import METADATA
from lightning_attack.models.weights import write_weights
from lightning_attack.models.wrapper import ModelError, SegmentationModel, freeze

SUFFIXES = (".pt2", ".safetensors")
# Sizes with which a program is compared to its network: odd ones, multiples of strides, one below most strides.
_OTHER_SIZES = ((1, 33, 57), (3, 64, 64), (1, 128, 80), (1, 17, 9))
_SECOND_SIZE = (256, 256)
_WRONG = 1e-3  # A difference of logits that rounding does not explain.


def export_checkpoint(
    ckpt: str,
    to: str,
    config: str | None = None,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] = (72, 104),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the network of a checkpoint of `fit` to a file for `predict`; see `load_checkpoint` and `export_model`.

    Args:
        ckpt: a `.ckpt` of `fit`, or a `weights.safetensors`.
        to: the file to write: `model.pt2` for `ExportedModel` or `weights.safetensors` for `TrainedModel`.
        config: configuration that says which network it is; the default is the run's own.
        classes: class names; the default is those in the checkpoint, if any.
        size: height and width to trace with.
        overwrite: replace the file if it exists.

    Returns:
        What was written about the network, see `export_model`.

    Raises:
        ModelError: the checkpoint is not one of `fit`, or the file cannot be written.
    """
    _check_target(Path(to), overwrite)  # before a minute of work
    model, known = load_checkpoint(ckpt, config)
    return export_model(model, to, classes or known, size, overwrite)


def export_model(
    model: SegmentationModel,
    path: str,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] = (72, 104),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a network to a file; the suffix decides the kind.

    * `.pt2`: a program of `torch.export` from [0, 1] images to logits of their size: normalisation, padding and
      resizing are inside, no code of this project is needed to run it. Batch, height and width are free where the
      network allows it, else height and width are fixed, or all three. Then program and network are compared on images
      of several sizes. `METADATA` inside the file holds what this function returns.
    * `.safetensors`: the weights in full precision, and in the file's metadata the recipe of `SMPModel`, with the
      normalisation and the stride in it, and the class names. For networks of smp only.

    The network is exported in eval mode and on the CPU; the one given is not changed.

    Args:
        model: the network.
        path: the file to write.
        classes: class names, one for each class.
        size: height and width to trace with; the only ones that the program takes if the network does not allow others.
        overwrite: replace the file if it exists.

    Returns:
        `name`, `num_classes`, `classes`, `mean`, `std`, `stride`; for `.pt2` also `normalised` = `inside`, `size`
        (`any` or [H, W]), `batch` (`any` or a number), `compared` (the sizes B, H, W), `difference` (largest difference
        of logits on them; 0.0 unless rounding differs) and `torch` (the version).

    Raises:
        ModelError: unknown suffix, existing file, class names that are not as many as the classes or stand twice, or a
            network that cannot be exported.
    """
    file = Path(path)
    _check_target(file, overwrite)
    if file.suffix == ".safetensors":
        return _save_weights(model, file, classes)
    model = freeze(copy.deepcopy(model)).cpu()
    try:
        model(torch.rand(2, 3, *size))  # num_classes is known from now on
    except Exception as error:
        raise ModelError(
            f"network '{model.name}' fails on a {size[0]}x{size[1]} image ({type(error).__name__}: {error}); give the "
            "size that it takes"
        ) from error
    about = _about(model, classes)
    program, found = _trace(model, size)
    about |= {"normalised": "inside", **found, "torch": torch.__version__}
    with atomic_write(file) as unfinished:
        torch.export.save(program, unfinished, extra_files={METADATA: json.dumps(about)})
    return about


def _check_target(file: Path, overwrite: bool) -> None:
    if file.suffix not in SUFFIXES:
        raise ModelError(
            f"'{file}' ends in '{file.suffix}'; choose model.pt2 (a program of torch.export) or weights.safetensors"
        )
    if file.is_dir() or (file.exists() and not overwrite):
        raise ModelError(f"'{file}' exists; choose another name or delete it")
    check_folder(file.parent)


def _about(model: SegmentationModel, classes: Sequence[str] | None) -> dict[str, Any]:
    if classes is not None and len(classes) != model.num_classes:
        raise ModelError(f"{len(classes)} class names for network '{model.name}' with {model.num_classes} classes")
    if twice := next((name for name, count in Counter(classes or ()).items() if count > 1), None):
        raise ModelError(f"classes names '{twice}' twice; tables tell classes apart by their names")
    return {
        "name": model.name,
        "num_classes": model.num_classes,
        "classes": None if classes is None else list(classes),
        "mean": [round(value, 7) for value in model.mean.flatten().tolist()],  # 0.485, not float32's 0.4850000143
        "std": [round(value, 7) for value in model.std.flatten().tolist()],
        "stride": model.stride,
    }


def _save_weights(model: SegmentationModel, file: Path, classes: Sequence[str] | None) -> dict[str, Any]:
    recipe = getattr(model, "recipe", None)
    if recipe is None:
        raise ModelError(
            f"network '{model.name}' ({type(model).__name__}) is not one of smp, whose recipe a weights file could "
            "carry; export it to model.pt2"
        )
    about = _about(model, classes)
    write_weights(file, model.network.state_dict(), recipe, classes)
    return about


def _trace(model: SegmentationModel, size: tuple[int, int]) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """The program with as few fixed sizes as possible, and what was found about it."""
    free, reasons = torch.export.Dim.DYNAMIC, []
    # All sizes free, the batch free, nothing free. What torch cannot prove of one size it sometimes can of another.
    for dimensions, traced, others in (
        ((0, 2, 3), size, _OTHER_SIZES),
        ((0, 2, 3), _SECOND_SIZE, ((2, *size), *_OTHER_SIZES)),
        ((0,), size, ((1, *size), (3, *size))),
        ((), size, ()),
    ):
        compared = [(2, *traced), *others]
        try:
            program = torch.export.export(
                _without_branches(model, any_size=2 in dimensions),
                (torch.rand(2, 3, *traced),),
                dynamic_shapes=(dict.fromkeys(dimensions, free),),
            )
            # Guards hold what happened to be true of the traced sizes (as "more than one cell"); the proof follows.
            runs = program.module(check_guards=False)
            difference = max(_difference(runs, model, shape) for shape in compared)
            if difference > _WRONG:
                raise ModelError(f"its program differs from it by {difference}")
        except Exception as error:  # torch.export raises whatever the network's code makes it stumble over
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if 2 not in dimensions:
            warnings.warn(
                f"the program of '{model.name}' takes images of {size[0]} x {size[1]} only, because torch could not "
                f"trace it for all sizes ({reasons[0]}); if photos have another size, export it with that: "
                f"--size=[{size[0]},{size[1]}]",
                stacklevel=3,
            )
        return program, {
            "size": "any" if 2 in dimensions else list(size),
            "batch": "any" if dimensions else 2,
            "compared": [list(shape) for shape in compared],
            "difference": difference,
        }
    raise ModelError(f"network '{model.name}' cannot be exported ({reasons[-1]})")


def _difference(program: nn.Module, model: SegmentationModel, shape: tuple[int, int, int]) -> float:
    images = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = program(images), model(images)
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        raise ModelError(f"its program returns {tuple(found.shape)} for {tuple(images.shape)}, or numbers not finite")
    return float((found - expected).abs().max())


def _without_branches(model: SegmentationModel, any_size: bool) -> SegmentationModel:
    """A copy whose padding does not ask whether it is needed, since a program takes one branch for all sizes."""
    model = copy.deepcopy(model)
    for part in list(model.modules()):
        if isinstance(part, SegmentationModel) and part.stride > 1:
            if any_size:
                _fix_padding(part.network)
            part.network, part.stride = _Padded(part), 1
    return freeze(model)


def _fix_padding(network: nn.Module) -> None:
    """Give convolutions that are padded as in TensorFlow, timm's `Conv2dSame`, their padding as numbers.

    It is a formula of the map's size, of which a program of any size would hold one inside the other: torch.export
    worked on those of an EfficientNet for more than five minutes. On maps whose sides are multiples of the layer's
    stride, as they are once images are padded to the network's, it is the same for all sizes.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ != "Conv2dSame" or not isinstance(child, nn.Conv2d):
                continue
            extents = zip(child.kernel_size, child.stride, child.dilation, strict=True)
            rows, columns = (max((size - 1) * dilation + 1 - stride, 0) for size, stride, dilation in extents)
            sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            plain = copy.copy(child)
            plain.__class__ = nn.Conv2d  # whose own padding is 0
            setattr(module, name, nn.Sequential(nn.ZeroPad2d(sides), plain))


class _Padded(nn.Module):
    """The network of a `SegmentationModel` between padding to its stride and cropping."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.stride = model.stride
        # It resizes the logits to the padded size. Its normalisation is (x - 0) / 1, which changes nothing.
        self.whole = SegmentationModel(model.network, model.num_classes, name=model.name)
        self.whole._classes_last = model._classes_last

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits = self.whole(F.pad(x, (0, -width % self.stride, 0, -height % self.stride)))
        # A slice keeps the strides of the padded tensor, and the tracer then asks whether these are equal.
        logits = logits.index_select(2, _places(x[0, 0, :, 0]))
        return logits.index_select(3, _places(x[0, 0, 0]))


def _places(line: Tensor) -> Tensor:
    """0, 1, 2, ... as many as `line` has, on its device: torch.arange would write the device into the program."""
    return torch.ones_like(line, dtype=torch.int64).cumsum(0) - 1
