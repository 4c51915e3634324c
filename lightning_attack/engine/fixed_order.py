"""`fixed_order`: operators of CUDA that add in no fixed order, computed in one.

Some operators of CUDA add with many threads to one place, in whatever order these come, and rounding depends on the
order. Told to be deterministic, torch takes another algorithm for some of them and refuses the others
(`torch.use_deterministic_algorithms`). Of these, `OPERATORS` computes in a fixed order those that networks for
segmentation are made of. They take the place of CUDA's own in torch's table of operators, below autograd: a network run
as it is, graphs made of it and exported programs all find them there, in autograd's threads too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_attack.engine.internals import ADAPTIVE_AVERAGE, SMOOTH_BICUBIC, SMOOTH_BILINEAR
from lightning_attack.engine.support import NOT_EXACT, EngineError

aten = torch.ops.aten

Operator = Callable[..., Tensor]
Scales = Sequence[float | None]
"""Scale factors that the caller of a resize gave, for height and width; None: the ratio of the sizes."""

_LOCK, _USERS = threading.Lock(), dict[str, tuple[int, Any]]()


@contextmanager
def fixed_order(device: str) -> Iterator[None]:
    """Inside the `with` block, `OPERATORS` take the place of torch's own on a kind of device: `CUDA`, or `CPU`.

    Example:
        >>> images = torch.tensor([[[[0.0, 1.0]]]], requires_grad=True)
        >>> with fixed_order("CPU"):
        ...     resized = torch.nn.functional.interpolate(images, size=(1, 4), mode="bilinear")
        ...     torch.autograd.grad(resized.sum(), images)[0].tolist()
        [[[[2.0, 2.0]]]]
    """
    with _LOCK:
        users, library = _USERS.get(device, (0, None))
        if library is None:
            library = torch.library.Library("aten", "IMPL")
            for name, function in OPERATORS.items():
                library.impl(name, function, device)
        _USERS[device] = users + 1, library
    try:
        yield
    finally:
        with _LOCK:
            users, library = _USERS.pop(device)
            if users > 1:
                _USERS[device] = users - 1, library
            del library  # with the last reference torch's own come back


def resize_backward(operator: Operator) -> Operator:
    r"""The gradient of a resize as two matrix products.

    What a resize does to rows and columns is linear, \(Y = R X C^\top\), so its gradient is \(R^\top G C\). The
    matrices are read off the operator itself, which is given a unit matrix for an image.

    Args:
        operator: the resize, such as `aten.upsample_bilinear2d`.
    """

    def backward(
        gradient: Tensor, output: Sequence[int], images: Sequence[int], align_corners: bool, *scales: float | None
    ) -> Tensor:
        del output
        down, across = (*scales, None, None)[:2]

        def resized(unit: Tensor, size: list[int], scales: Scales) -> Tensor:
            return operator(unit, size, align_corners, *scales)

        return _separable(
            gradient,
            images,
            lambda unit: resized(unit, [gradient.shape[-2], images[-2]], (down, None)),
            lambda unit: resized(unit, [images[-1], gradient.shape[-1]], (None, across)),
        )

    return backward


def pool_backward(gradient: Tensor, images: Tensor) -> Tensor:
    """The gradient of adaptive average pooling, see `resize_backward`."""
    height, width = gradient.shape[-2:]
    return _separable(
        gradient,
        images.shape,
        lambda unit: ADAPTIVE_AVERAGE(unit, [height, images.shape[-2]]),
        lambda unit: ADAPTIVE_AVERAGE(unit, [images.shape[-1], width]),
    )


def pad_backward(operator: Operator) -> Operator:
    """The gradient of padding by what is at the border, see `resize_backward`.

    Args:
        operator: `aten.reflection_pad2d` or `aten.replication_pad2d`.
    """

    def backward(gradient: Tensor, images: Tensor, padding: Sequence[int]) -> Tensor:
        left, right, top, bottom = padding
        return _separable(
            gradient,
            images.shape,
            lambda unit: operator(unit, [0, 0, top, bottom]),
            lambda unit: operator(unit, [left, right, 0, 0]),
        )

    return backward


def max_pool_backward(gradient: Tensor, images: Tensor, indices: Tensor) -> Tensor:
    """The gradient of adaptive maximum pooling: windows overlap, so that a pixel may be the maximum of several."""
    height, width = images.shape[-2:]
    values, places = gradient.reshape(-1, gradient.shape[-2:].numel()), indices.reshape(-1, indices.shape[-2:].numel())
    planes = torch.arange(len(values), device=gradient.device)[:, None]
    summed = _added(gradient.new_zeros(len(values) * height * width), planes * height * width + places, values)
    return summed.view(images.shape)


def unpool(pooled: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Maximum unpooling: of several values for one place, always the same one is taken."""
    result = pooled.new_zeros(*pooled.shape[:-2], size[0] * size[1])
    result.scatter_(-1, indices.flatten(-2), pooled.flatten(-2))
    return result.view(*pooled.shape[:-2], *size)


def grid_sample_backward(
    gradient: Tensor,
    images: Tensor,
    grid: Tensor,
    interpolation: int,
    padding: int,
    align_corners: bool,
    wanted: Sequence[bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `F.grid_sample`, with respect to the images and to the grid.

    Args:
        gradient: (B, C, H', W').
        images: (B, C, H, W).
        grid: (B, H', W', 2), from -1 to 1, x first.
        interpolation: 0 bilinear, 1 nearest.
        padding: 0 zeros, 1 border, 2 reflection.
        align_corners: see `F.grid_sample`.
        wanted: which of the two gradients are.

    Raises:
        EngineError: bicubic interpolation (2).
    """
    if interpolation not in (0, 1):
        raise EngineError(f"exact=true: bicubic grid_sample has no deterministic gradient; {NOT_EXACT}")
    kind = _wide(gradient.dtype)
    gradient_of, values = gradient.to(kind), images.to(kind)
    batch, channels, height, width = images.shape
    x, along_x = _source(grid[..., 0].to(kind), width, padding, align_corners)
    y, along_y = _source(grid[..., 1].to(kind), height, padding, align_corners)
    corners: Iterable[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]  # column, row, weights and their slopes
    if interpolation == 1:
        one, none = torch.ones_like(x), torch.zeros_like(x)
        corners = [(x.round(), y.round(), one, one, none, none)]
    else:
        left, top, one = x.floor(), y.floor(), torch.ones_like(x)
        sides_x = [(left, left + 1 - x, -one), (left + 1, x - left, one)]
        sides_y = [(top, top + 1 - y, -one), (top + 1, y - top, one)]
        corners = [(c, r, wx, wy, dx, dy) for r, wy, dy in sides_y for c, wx, dx in sides_x]
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * height * width
    of_pixels = gradient_of.permute(0, 2, 3, 1)  # (B, H', W', C)
    pixels = values.permute(0, 2, 3, 1).reshape(-1, channels)
    places, shares = [], []
    for_grid = torch.zeros_like(grid, dtype=kind)
    for column, row, of_x, of_y, slope_x, slope_y in corners:
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        place = first + row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        places.append(place)
        shares.append(of_pixels * (of_x * of_y * inside)[..., None])
        if wanted[1] and interpolation == 0:
            change = (pixels[place] * of_pixels).sum(-1) * inside
            for_grid += torch.stack([change * slope_x * of_y * along_x, change * slope_y * of_x * along_y], -1)
    for_images = None
    if wanted[0]:
        summed = _added(torch.zeros_like(pixels), torch.stack(places), torch.stack(shares))
        for_images = summed.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous().to(images.dtype)
    return for_images, for_grid.to(grid.dtype) if wanted[1] else None


def _grid_sample_backward_of_cudnn(images: Tensor, grid: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return grid_sample_backward(gradient, images, grid, 0, 0, True)


def _source(places: Tensor, length: int, padding: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Where in a row (or column) of pixels places from -1 to 1 are, and the slope of that."""
    low, high = (0.0, length - 1.0) if align_corners else (-0.5, length - 0.5)
    slope = torch.full_like(places, (high - low) / 2)
    places = (places + 1) / 2 * (high - low) + low
    if padding == 2:
        span = max(high - low, 1e-30)
        turns = ((places - low) / span).floor()
        odd = turns.remainder(2) == 1
        rest = places - low - turns * span
        places, slope = low + torch.where(odd, span - rest, rest), torch.where(odd, -slope, slope)
    if padding:
        slope = torch.where((places > 0) & (places < length - 1), slope, 0.0)
        places = places.clamp(0, length - 1)
    # Far outside, and where it is no number, a place is no pixel's.
    return places.nan_to_num(nan=-3.0).clamp(-3, length + 2), slope


def _separable(
    gradient: Tensor, images: Sequence[int], down: Callable[[Tensor], Tensor], across: Callable[[Tensor], Tensor]
) -> Tensor:
    """The gradient of an operator that is linear in rows and columns; `down` and `across` apply it to one of these."""
    kind, (height, width) = _wide(gradient.dtype), images[-2:]
    rows = down(torch.eye(height, dtype=kind, device=gradient.device)[None, None])[0, 0]
    columns = across(torch.eye(width, dtype=kind, device=gradient.device)[None, None])[0, 0]
    result = rows.T @ (gradient.to(kind) @ columns.T)
    return _like(result.to(gradient.dtype), gradient)


def _added(result: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Values added to the rows of a tensor, in order: on CUDA this sorts them by their places first."""
    return result.index_put_((places.flatten(),), values.reshape(-1, *result.shape[1:]), accumulate=True)


def _wide(kind: torch.dtype) -> torch.dtype:
    """What sums of numbers of this type are taken in."""
    return torch.float64 if kind == torch.float64 else torch.float32


def _like(result: Tensor, other: Tensor) -> Tensor:
    """A tensor in the memory layout of another one."""
    layout = torch.channels_last if other.ndim == 4 and not other.is_contiguous() else torch.contiguous_format
    return result.contiguous(memory_format=layout)


OPERATORS: dict[str, Callable[..., Any]] = {
    "upsample_bilinear2d_backward": resize_backward(aten.upsample_bilinear2d),
    "upsample_bicubic2d_backward": resize_backward(aten.upsample_bicubic2d),
    "_upsample_bilinear2d_aa_backward": resize_backward(SMOOTH_BILINEAR),
    "_upsample_bicubic2d_aa_backward": resize_backward(SMOOTH_BICUBIC),
    "_adaptive_avg_pool2d_backward": pool_backward,
    "reflection_pad2d_backward": pad_backward(aten.reflection_pad2d),
    "replication_pad2d_backward": pad_backward(aten.replication_pad2d),
    "adaptive_max_pool2d_backward": max_pool_backward,
    "max_unpool2d": unpool,
    "grid_sampler_2d_backward": grid_sample_backward,
    "cudnn_grid_sampler_backward": _grid_sample_backward_of_cudnn,
}
"""Operators of ATen that add in no fixed order on CUDA, each with what computes the same in one."""
