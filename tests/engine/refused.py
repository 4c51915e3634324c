"""Operators that add in no fixed order on CUDA, by torch's documentation of `use_deterministic_algorithms`."""

REFUSED = {
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "_ctc_loss_backward", "_embedding_bag",
    "_upsample_bicubic2d_aa_backward", "_upsample_bilinear2d_aa_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "cudnn_grid_sampler_backward", "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "histc", "kthvalue",
    "max_unpool2d", "max_unpool3d", "median", "nanmedian", "nll_loss_forward", "put_", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "replication_pad1d_backward",
    "replication_pad2d_backward", "replication_pad3d_backward", "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward", "upsample_linear1d_backward", "upsample_trilinear3d_backward",
}  # fmt: skip
"""What torch refuses where it is told to be deterministic, by name."""


def refused(func, args):
    """Whether torch refuses a call: two are only with weights, or with a sum of all pixels."""
    name = func.overloadpacket.__name__
    if name == "bincount":
        return len(args) > 1 and args[1] is not None
    if name == "nll_loss2d_forward":
        return args[3] != 0  # none
    return name in REFUSED
