"""Segmenter by the tensor names of the robust network of Croce et al."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from lightning_attack.models.initial import Initial
from lightning_attack.models.weights import load_weights, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel

_PATCH, _HEAD_WIDTH = 16, 64
# Of a checkpoint beside the network: the encoder's classifier of ImageNet, which no prediction uses.
_UNUSED = ("encoder.head.",)


class RobustSegmenter(SegmentationModel):
    """Segmenter on a ViT-S/16 with the mask transformer as decoder, for the weights of PIR-AT.

    Source: R. Strudel et al., "Segmenter: Transformer for Semantic Segmentation", ICCV 2021, arXiv 2105.05633; the
    weights (ADE20K: github.com/nmndeep/Robust-Segmentation) are of F. Croce, N. D. Singh, M. Hein, "Towards Reliable
    Evaluation and Fast Training of Robust Semantic Segmentation Models", ECCV 2024, arXiv 2306.12941, see
    `RobustUPerNet`. Names and shapes of the tensors are those of that repository's code
    (`encoder.blocks.0.attn.qkv.weight`, `decoder.cls_emb`, ...). With z the encoder's patches and c an embedding of
    each class, both after two more transformer blocks,

        logits of a patch = LayerNorm(cosine(z P, c_1 Q), ..., cosine(z P, c_K Q)),

    which are resized to the image. Images are padded to whole patches. The embedding of positions is that of `size`
    x `size` pixels; for images with other patches it is resized bilinearly. The repository does so by the number of
    patches, not by their rows and columns: there, 256 x 1024 pixels have the positions of 512 x 512.

    The ADE20K network has 151 classes, the first of which is what belongs to none of the 150: `ClassMap` leaves it
    out. The repository feeds images in [0, 1] as they are, which is the default here. Compare the clean mIoU with
    the published one.

    Args:
        weights: file with the trained weights, `module.` before the names or not; None leaves the initial values.
        num_classes: number of classes.
        mean: mean of each colour in [0, 1].
        std: standard deviation of each colour.
        size: height and width of the images that the network was trained with, a multiple of 16.
        width: numbers for each patch: 384 in the published network, less for experiments (a multiple of 64).
        name: name in tables and folders; the default is `segmenter_vit_small`.
        weights_key: key in the file under which the weights are; None: the usual ones.

    Raises:
        ModelError: an argument is out of range, or the weights do not fit.

    Example:
        >>> model = RobustSegmenter(width=64, size=32, num_classes=5).eval()
        >>> model.name, model(torch.rand(1, 3, 40, 70)).shape
        ('segmenter_vit_small', torch.Size([1, 5, 40, 70]))
    """

    _classes_last = False

    def __init__(
        self,
        weights: str | None = None,
        num_classes: int = 151,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int = 512,
        width: int = 384,
        name: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        if num_classes < 1 or min(size, width) < 1 or size % _PATCH or width % _HEAD_WIDTH:
            raise ModelError(
                f"num_classes={num_classes} must be 1 or more, size={size} a multiple of {_PATCH}, width={width} a "
                f"multiple of {_HEAD_WIDTH}"
            )
        path = weights_path(weights) if weights else None
        network = _Segmenter(size, width, num_classes)
        if path:
            load_weights(network, path, _UNUSED, weights_key)
        super().__init__(network, num_classes, mean, std, stride=_PATCH, name=name or "segmenter_vit_small")
        if not path:
            self._initial = Initial(network)


class _Segmenter(nn.Module):
    """The network, from whole patches to logits for each; its modules have the names of the weights files."""

    def __init__(self, size: int, width: int, classes: int) -> None:
        super().__init__()
        heads = width // _HEAD_WIDTH
        self.encoder = VisionTransformer(
            img_size=size,
            patch_size=_PATCH,
            embed_dim=width,
            depth=12,
            num_heads=heads,
            num_classes=0,
            norm_layer=nn.LayerNorm,  # timm's own has another eps
            embed_layer=partial(PatchEmbed, strict_img_size=False),
        )
        self.decoder = _MaskTransformer(width, heads, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] // _PATCH, x.shape[-1] // _PATCH
        encoder = self.encoder
        # timm resizes positions with another filter, so its `forward_features` would give other numbers.
        first = cast(Tensor, encoder.cls_token).expand(len(x), -1, -1)
        tokens = torch.cat([first, encoder.patch_embed(x)], 1)
        tokens = encoder.norm(encoder.blocks(tokens + self._positions(rows, columns)))
        masks: Tensor = self.decoder(tokens[:, 1:])
        return masks.transpose(1, 2).unflatten(2, (rows, columns))

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The embedding of positions, (1, 1 + rows * columns, width)."""
        known, grid = cast(Tensor, self.encoder.pos_embed), self.encoder.patch_embed.grid_size
        if grid == (rows, columns):
            return known
        square = known[:, 1:].transpose(1, 2).unflatten(2, grid)
        resized = F.interpolate(square, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([known[:, :1], resized.flatten(2).transpose(1, 2)], 1)


class _MaskTransformer(nn.Module):
    """From patches (B, N, width) to logits (B, N, classes)."""

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.cls_emb = nn.Parameter(0.02 * torch.randn(1, classes, width))
        self.proj_dec = nn.Linear(width, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(2)))
        self.decoder_norm = nn.LayerNorm(width)
        self.proj_patch = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.proj_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.mask_norm = nn.LayerNorm(classes)

    def forward(self, patches: Tensor) -> Tensor:
        count = patches.shape[1]
        tokens = torch.cat([self.proj_dec(patches), self.cls_emb.expand(len(patches), -1, -1)], 1)
        tokens = self.decoder_norm(self.blocks(tokens))
        found, classes = tokens[:, :count] @ self.proj_patch, tokens[:, count:] @ self.proj_classes
        cosine = (found / found.norm(dim=-1, keepdim=True)) @ (classes / classes.norm(dim=-1, keepdim=True)).mT
        logits: Tensor = self.mask_norm(cosine)
        return logits
