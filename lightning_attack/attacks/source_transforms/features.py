"""Source transforms of features: noise in them, and clean ones among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, fx

from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.source_transforms.base import SourceTransform, check_names, check_share
from lightning_attack.attacks.source_transforms.connections import blocks, sums
from lightning_attack.attacks.source_transforms.graph import SourceGraph
from lightning_attack.attacks.source_transforms.run import Run

LAYERS = "outputs of convolutions and of products with weights"


class FeatureNoise(SourceTransform):
    """FAUG: noise on the features of an early layer, in each pass anew.

    Source: D. Wang, W. Yao, T. Jiang, X. Zheng, J. Wu, X. Chen, "Improving the Transferability of Adversarial Examples
    by Feature Augmentation", 2024, arXiv 2407.06714.

        h <- h + sigma * std(h) * n,     n standard normal for each value, std of each channel of each image

    Departs from ports of the released code: those take one standard deviation for the whole batch, and leave the first
    step without noise. With one for each channel it does not matter whether a batch normalization follows the layer or
    was folded into it.

    The arguments of a public port: sigma 0.3, on the first convolution; eps 16/255, steps of 2/255, 10 steps.

    Args:
        sigma: size of the noise, in standard deviations of the features, 0 or more; 0 changes nothing.
        at: depth, in [0, 1], see `SourceGraph`; the first layer there or deeper gets the noise. 0 is the first of all.
        nodes: names of the nodes that get noise in its place; `auto` names none.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such layer.
    """

    def __init__(self, sigma: float = 0.3, at: float = 0.0, nodes: Sequence[str] = (AUTO,)) -> None:
        if not 0 <= sigma < float("inf"):  # NaN too
            raise ValueError(f"sigma={sigma}: must be 0 or more")
        self.sigma, self.at, self.nodes = sigma, check_share("at", at), check_names(nodes)

    @property
    def idle(self) -> bool:
        return self.sigma == 0

    def rewrite(self, graph: SourceGraph) -> None:
        found = graph.find(self, LAYERS, graph.layers(), self.at, self.nodes)
        for node in found[:1] if self.nodes == [AUTO] else found:
            graph.follow_live(node, partial(self._noisy, axis=graph.channels(node)), "noise")

    def _noisy(self, run: Run, key: str, h: Tensor, axis: int) -> Tensor:
        size = h.detach().std(_places(h.shape, axis), keepdim=True, correction=0)
        return h + self.sigma * size * run.normal(key, h)


class DiversifiedFeatures(SourceTransform):
    """DHF: late features mixed with a little of the clean ones, and some of their values levelled.

    Source: Z. Wang, Z. Zhang, S. Liang, X. Wang, "Diversifying the High-level Features for better Adversarial
    Transferability", BMVC 2023, arXiv 2304.10136.

        h <- (1 - a) h + a h_clean,     a uniform in [0, mix) for each image
        h <- mean(h) at a random share `level` of its values, the mean of each channel

    It is done to the sum of each residual connection from `start` on, or, in a network without any, to the output of
    each layer. Features of the clean images are taken in the view that the attack shows of the adversarial ones.

    Decisions where the paper and ports differ: it is done in all steps, and not only once an image is fooled, which
    few images of a segmentation network are altogether; means are those of each channel of an image; one share a is
    drawn for each image, and it is the sums that are changed. The released code and its port draw a for each value, and
    change what comes out of the batch normalizations inside the branches.

    The arguments of a public port: mix 0.2, level 0.1; of a ResNet the later residual blocks.

    Args:
        mix: largest share of the clean features, in [0, 1].
        level: share of the values that become the mean, in [0, 1]. With mix = level = 0 nothing changes.
        start: depth from which features are changed, in [0, 1], see `SourceGraph`.
        nodes: names of the nodes to change in place of those from `start` on; `auto` names none.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has nothing to change.
    """

    def __init__(
        self, mix: float = 0.2, level: float = 0.1, start: float = 0.2, nodes: Sequence[str] = (AUTO,)
    ) -> None:
        self.mix, self.level = check_share("mix", mix), check_share("level", level)
        self.start, self.nodes = check_share("start", start), check_names(nodes)

    @property
    def idle(self) -> bool:
        return self.mix == self.level == 0

    @property
    def needs_clean(self) -> bool:
        return self.mix > 0

    def rewrite(self, graph: SourceGraph) -> None:
        added = sums(graph)
        what = "sums of residual connections" if added else LAYERS
        for node in graph.find(self, what, added or graph.layers(), self.start, self.nodes):
            graph.follow_live(node, partial(self._diverse, axis=graph.channels(node)), "diverse")

    def _diverse(self, run: Run, key: str, h: Tensor, axis: int) -> Tensor:
        if self.mix:
            share = run.uniform(f"{key} mix", h, (1,) * (h.ndim - 1), high=self.mix)
            h = (1 - share) * h + share * run.clean(key, h)
        if not self.level:
            return h
        levelled = run.uniform(f"{key} level", h, tuple(h.shape[1:])) < self.level
        return torch.where(levelled, h.mean(_places(h.shape, axis), keepdim=True), h)


class PerturbationDecay(SourceTransform):
    """ILPD: within the source, what the attack has changed is made smaller.

    Source: Q. Li, Y. Guo, W. Zuo, H. Chen, "Improving Adversarial Transferability via Intermediate-level Perturbation
    Decay", NeurIPS 2023, arXiv 2304.13410.

        h <- gamma h(x) + (1 - gamma) h(x_0 + sigma n),     n standard normal for each value, x_0 the clean image

    h is the output of a block in the middle: the sum of the first residual connection at depth `at` or deeper, so that
    no perturbation passes by on the skip connection; sums inside the branch of another residual connection do not
    count. (A ResNet's activation behind the sum, which ends the block in the released code, comes after the change.)
    In a network without residual connections there, it is the output of the first layer.

    Features of the clean images are taken in the view that the attack shows of the adversarial ones (a public port
    takes those of the clean images as they are). What a decoder is given from before h is not changed.

    The arguments of a public port: gamma 0.1, sigma 0.05, of a ResNet-50 the output of the second stage, 100 steps of
    1/255, eps 16/255.

    Args:
        gamma: what is left of the change, in (0, 1]; 1 changes nothing.
        sigma: size of the noise on the clean image, of [0, 1] pixels, 0 or more.
        at: depth, in [0, 1], see `SourceGraph`; the first block's output, or else layer, there or deeper is changed.
        nodes: names of the nodes to change in its place, layers or sums of residual connections; `auto` names none.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such layer.
    """

    needs_clean = True

    def __init__(
        self, gamma: float = 0.1, sigma: float = 0.05, at: float = 0.3, nodes: Sequence[str] = (AUTO,)
    ) -> None:
        if not 0 < gamma <= 1 or not 0 <= sigma < float("inf"):
            raise ValueError(f"gamma={gamma} must be above 0 and at most 1, sigma={sigma} 0 or more")
        self.gamma, self.sigma, self.at, self.nodes = gamma, sigma, check_share("at", at), check_names(nodes)

    @property
    def idle(self) -> bool:
        return self.gamma == 1

    def rewrite(self, graph: SourceGraph) -> None:
        layers = graph.layers()
        added = list(dict.fromkeys(one.total for one in blocks(graph) if graph.depth(one.total) >= self.at))
        what = f"{LAYERS}, and sums of residual connections"
        found = graph.find(self, what, added or layers, self.at, self.nodes, named=[*layers, *sums(graph)])
        for node in found[:1] if self.nodes == [AUTO] else found:
            graph.follow_live(node, self._decayed, "decay")

    def clean_images(self, images: Tensor, draws: Draws) -> Tensor:
        if not self.sigma:
            return images
        return images + self.sigma * draws.normal("source clean", images.shape[1:]).to(images.dtype)

    def _decayed(self, run: Run, key: str, h: Tensor) -> Tensor:
        return self.gamma * h + (1 - self.gamma) * run.clean(key, h)


class CleanFeatureMixup(SourceTransform):
    """CFM: here and there, channels of the source are mixed with those of the clean image.

    Source: J. Byun, M.-J. Kwon, S. Cho, Y. Kim, C. Kim, "Introducing Competition to Boost the Transferability of
    Targeted Adversarial Examples through Clean Feature Mixup", CVPR 2023, arXiv 2305.14846.

        with probability `prob`, for each image and layer:
        h <- (1 - a) h + a h_clean,     a uniform in [0, mix) for each channel

    for each layer whose output is at most a quarter as high and as wide as the image. Features of the clean images are
    taken in the view that the attack shows of the adversarial ones.

    Departs from the paper in two points. There the clean features are shuffled among the images of a batch, so that a
    result depends on the batch; here they are the image's own. There they are taken once, of the clean image as it is;
    here in each pass, in the view that is shown, which costs a forward pass. A public port mixes linear layers whatever
    their size, and tosses one coin for each layer and the whole batch. The paper maximizes the logit of the wanted
    class; the preset `cfm` has the cross-entropy.

    The paper's own arguments: prob 0.1, mix 0.75, with DI and TI, targeted, 300 steps of 2/255, eps 16/255.

    Args:
        prob: probability in [0, 1] that a layer is mixed, drawn for each image, layer and pass; 0 changes nothing.
        mix: largest share of the clean features, in [0, 1]; 0 changes nothing.
        nodes: names of the nodes to mix in place of all such layers; `auto` names none.
        required: whether a source without such layers, or without a graph, is an error; False attacks it as it is.
        start: depth from which layers are mixed, in [0, 1], see `SourceGraph`.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such layer.
    """

    needs_clean = True
    start: float = 0.0

    def __init__(
        self,
        prob: float = 0.1,
        mix: float = 0.75,
        nodes: Sequence[str] = (AUTO,),
        required: bool = True,
        start: float = 0.0,
    ) -> None:
        self.prob, self.mix, self.nodes = check_share("prob", prob), check_share("mix", mix), check_names(nodes)
        if not required:  # True and 0 are not noted: settings stay those of earlier runs
            self.required = False
        if check_share("start", start):
            self.start = start

    @property
    def idle(self) -> bool:
        return self.prob == 0 or self.mix == 0

    def rewrite(self, graph: SourceGraph) -> None:
        layers = graph.layers()
        small = [node for node in layers if _is_small(graph, node)]
        what = "outputs of layers that are at most a quarter as high and as wide as the image"
        what = what if self.nodes == [AUTO] else LAYERS
        for node in graph.find(self, what, small, self.start, self.nodes, named=layers):
            graph.follow_live(node, partial(self._mixed, axis=graph.channels(node)), "mixup")

    def _mixed(self, run: Run, key: str, h: Tensor, axis: int) -> Tensor:
        one = [1] * (h.ndim - 1)
        coins = run.uniform(f"{key} coin", h, tuple(one))
        one[axis - 1] = h.shape[axis]
        shares = run.uniform(f"{key} mix", h, tuple(one), high=self.mix)
        share = torch.where(coins < self.prob, shares, 0)
        return (1 - share) * h + share * run.clean(key, h)


def _places(shape: Sequence[int], channels: int) -> tuple[int, ...]:
    """The axes of the places of features: two of a map, one of tokens (B, N, C)."""
    return tuple(axis for axis in range(1, len(shape)) if axis != channels)


def _is_small(graph: SourceGraph, node: fx.Node) -> bool:
    """Whether a node has at most a quarter of the image's height and width; of tokens, a sixteenth of its pixels."""
    shape, (height, width) = tuple(node.meta["val"].shape), graph.size
    places: list[int] = [shape[axis] for axis in _places(shape, graph.channels(node))]
    if len(places) == 2:
        return places[0] <= max(1, height // 4) and places[1] <= max(1, width // 4)
    return math.prod(places) <= max(1, height * width // 16)
