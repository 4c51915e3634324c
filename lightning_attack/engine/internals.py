"""What the engine uses of torch beyond its public interface: looked up here, all at once, and nowhere else.

A release of torch may rename any of it, and builds without oneDNN (as for macOS) lack the operators of `mkldnn`. This
module then fails on import, and `prepare` notices: it then runs networks without an engine and logs the reason.
"""

from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = [
    "ADAPTIVE_AVERAGE", "ATTENTION", "BATCH_NORMS", "BATCH_NORMS_WITH_MODE", "CONVOLUTION", "CONVOLUTION_SUM",
    "CONVOLUTION_SUM_IN_PLACE", "CONVOLUTION_TRANSPOSED", "IN_PLACE_GRADIENTS", "LINEAR", "LOOKUP", "PACK_CONVOLUTION",
    "PACK_CONVOLUTION_TRANSPOSED", "PACK_LINEAR", "SMOOTH_BICUBIC", "SMOOTH_BILINEAR", "TO_COPY", "UNSAFE_VIEW",
    "FakeTensorMode", "OpOverload", "cpu_has_bfloat16", "make_fx",
]  # fmt: skip

_aten, _mkldnn = torch.ops.aten, torch.ops.mkldnn

# oneDNN's convolutions and matrix products on packed weights, with an activation or a sum done in the same pass.
CONVOLUTION = _mkldnn._convolution_pointwise.default
CONVOLUTION_TRANSPOSED = _mkldnn._convolution_transpose_pointwise.default
CONVOLUTION_SUM = _mkldnn._convolution_pointwise.binary
CONVOLUTION_SUM_IN_PLACE = _mkldnn._convolution_pointwise_.binary
LINEAR = _mkldnn._linear_pointwise
PACK_CONVOLUTION = _mkldnn._reorder_convolution_weight
PACK_CONVOLUTION_TRANSPOSED = _mkldnn._reorder_convolution_transpose_weight
PACK_LINEAR = _mkldnn._reorder_linear_weight
cpu_has_bfloat16 = _mkldnn._is_mkldnn_bf16_supported

# Operators of ATen that no public function has the name of.
BATCH_NORMS = (
    _aten.native_batch_norm.default, _aten._native_batch_norm_legit_no_training.default,
    _aten._batch_norm_no_update.default, _aten.cudnn_batch_norm.default, _aten.miopen_batch_norm.default,
)  # fmt: skip
"""All take (images, weight, bias, mean, variance, ..., eps) and return the result first."""
BATCH_NORMS_WITH_MODE = (BATCH_NORMS[0], *BATCH_NORMS[3:])
"""Those whose sixth argument is whether the statistics of the batch are used."""
ATTENTION = (
    _aten._scaled_dot_product_flash_attention_for_cpu.default, _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention.default, _aten._scaled_dot_product_cudnn_attention.default,
)  # fmt: skip
LOOKUP = _aten._unsafe_index.Tensor
ADAPTIVE_AVERAGE = _aten._adaptive_avg_pool2d.default
SMOOTH_BILINEAR, SMOOTH_BICUBIC = _aten._upsample_bilinear2d_aa.default, _aten._upsample_bicubic2d_aa.default
TO_COPY = _aten._to_copy.default
UNSAFE_VIEW = _aten._unsafe_view.default
IN_PLACE_GRADIENTS: dict[Any, Any] = {
    _aten.threshold_backward.default: _aten.threshold_backward.grad_input,
    _aten.hardtanh_backward.default: _aten.hardtanh_backward.grad_input,
    _aten.silu_backward.default: _aten.silu_backward.grad_input,
}
"""Gradients of activations, each with its variant that writes into memory it is given."""
