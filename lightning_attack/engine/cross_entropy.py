"""Cross-entropy of each pixel, whose gradient reuses the softmax of the forward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lightning_attack.common.labels import IGNORE_INDEX

REGISTER = 16
"""Least number of classes for which the softmax over neighbours in memory is fast: the floats in a register."""


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = IGNORE_INDEX) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each pixel, and the log-probabilities that it was computed from.

        L_i = -log p_y,  p = softmax(z_i);  0 where the label is ignored
        dL_i / dz_k = p_k - [k = y]

    As `F.cross_entropy(logits, labels, ignore_index=..., reduction="none")`: to the last bit where logits are
    contiguous, as networks without an engine return them; with half of its passes over memory where they are
    channels_last, as graphs return them.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of the pixels whose loss is 0.

    Returns:
        The losses (B, H, W), and log p (B, C, H, W) without history: gradients flow through the losses only.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
        >>> losses, log_probs = cross_entropy(logits, torch.tensor([[[0, 255]]]))
        >>> losses                                              # log 2, ignored
        tensor([[[0.6931, 0.0000]]], grad_fn=<NllLoss2DBackward0>)
        >>> torch.autograd.grad(losses.sum(), logits)[0].flatten().tolist()      # 1/2 - 1, 0; 1/2, 0
        [-0.5, 0.0, 0.5, 0.0]
    """
    if logits.is_contiguous():
        log_probs = F.log_softmax(logits, 1)
        return F.nll_loss(log_probs, labels, ignore_index=ignore_index, reduction="none"), log_probs.detach()
    losses, log_probs = _CrossEntropy.apply(logits, labels, ignore_index)
    return losses, log_probs


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
        by_pixel = logits.shape[1] >= REGISTER and logits.is_contiguous(memory_format=torch.channels_last)
        values, dim = (logits.permute(0, 2, 3, 1), 3) if by_pixel else (logits.contiguous(), 1)
        log_probs = F.log_softmax(values, dim)
        ignored = labels == ignore_index
        known = labels.masked_fill(ignored, 0).unsqueeze(dim)
        losses = log_probs.gather(dim, known).squeeze(dim).neg_().masked_fill_(ignored, 0)
        ctx.dim = dim
        ctx.save_for_backward(log_probs, known, ignored)
        probabilities = log_probs.permute(0, 3, 1, 2) if by_pixel else log_probs
        ctx.mark_non_differentiable(probabilities)
        ctx.set_materialize_grads(False)  # else they get a gradient of zeros, as large as they are
        return losses, probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor, _: None) -> tuple[Tensor, None, None]:
        log_probs, known, ignored = ctx.saved_tensors
        weights = weights.masked_fill(ignored, 0).unsqueeze(ctx.dim)
        gradient = log_probs.exp().mul_(weights).scatter_add_(ctx.dim, known, -weights)
        return gradient.permute(0, 3, 1, 2) if ctx.dim == 3 else gradient, None, None
