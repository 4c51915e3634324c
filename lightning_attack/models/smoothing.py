"""`Smoothed`: a network smoothed by Gaussian noise, which abstains where its class is not certain."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_attack.models.draws import draws_for
from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model, with_windows


class Smoothed(SegmentationModel):
    """A target that takes the class which a network finds most often under Gaussian noise, or abstains: SegCertify.

    Source: M. Fischer, M. Baader, M. Vechev, "Scalable Certified Segmentation via Randomized Smoothing", ICML 2021,
    arXiv 2107.00228, after J. Cohen et al., ICML 2019, arXiv 1902.02918. For the pixel i of an image x,

        c_i = argmax_c #{k <= n0 : f_i(x + e_k) = c}                e_k ~ N(0, sigma^2), n0 images
        n_i = #{k <= n : f_i(x + e'_k) = c_i}                       n further images
        p_i = P[Binomial(n, tau) >= n_i]                            H_i: P[f_i(x + e) = c_i] <= tau

    and the class is c_i where H_i is rejected by Holm's procedure at the level alpha over all pixels, see `holm`. The
    others abstain: their class is `common.labels.ABSTAINED`, which counts as wrong whatever the label, and their share
    is in the tables of a run. With probability 1 - alpha, *all* pixels that do not abstain keep their class under any
    perturbation whose L2 norm (over the whole image, in [0, 1] pixels) is below `certified_radius` = sigma Phi^-1(tau).

    Whether anything can be certain depends on the number of pixels: even n_i = n is too little where
    tau^n > alpha / (H W). Such an n is refused, with one that is large enough, since all pixels would abstain.

    Noise depends on `seed` and on the image's own values alone, so that results do not depend on batches or processes.
    Pixels are not clipped to [0, 1] under noise. Windows of a run (`model.windows`) are those of the network: the whole
    image gets one noise. Networks that were not trained under noise lose much of their mIoU.

    Logits are log(p / (1 - p)) with p = (n_i + 1) / (n + 2) for the class of a pixel and 0 for the other classes; where
    it abstains all are 0, so that `argmax` alone does not show it: `models.wrapper.decide` does. It is a target; as a
    source it is refused, because counts have no gradient.

    Args:
        network: f, on [0, 1] images.
        sigma: standard deviation of the noise in [0, 1] pixels, above 0.
        tau: the share of the noisy images that is certified, in [0.5, 1).
        n0: noisy images that choose the class, 1 or more.
        n: noisy images that test it.
        alpha: probability that any pixel of an image is certified wrongly, in (0, 1).
        batch: noisy images that are shown to the network at a time.
        seed: of the noise.
        name: name in tables and folders; the default is the network's with `_smoothed`.

    Raises:
        ModelError: an argument is out of range, n is too small for the image, or gradients are asked for.

    Example:
        >>> from lightning_attack.models.wrapper import decide
        >>> f = nn.Conv2d(3, 2, 1, bias=False)                # class 1 where the sum of the colours is above 0
        >>> f.weight.data = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        >>> smoothed = Smoothed(f, sigma=0.1, tau=0.75, n0=5, n=20, alpha=0.01)
        >>> image = torch.tensor([-0.5, 0.0, 0.5]).expand(1, 3, 1, 3)
        >>> decide(smoothed, smoothed(image)).tolist(), round(smoothed.certified_radius, 4)      # 0.1 * 0.6745
        ([[[0, -1, 1]]], 0.0674)
    """

    abstains = True
    _classes_last = False
    _one_is_binary = False

    def __init__(
        self,
        network: nn.Module,
        sigma: float = 0.25,
        tau: float = 0.75,
        n0: int = 10,
        n: int = 100,
        alpha: float = 0.001,
        batch: int = 8,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if not 0 < sigma < math.inf:
            raise ModelError(f"Smoothed: sigma={sigma} must be above 0; it is in [0, 1] pixels")
        if not 0.5 <= tau < 1:
            raise ModelError(f"Smoothed: tau={tau} must be 0.5 or more and below 1")
        if not 0 < alpha < 1:
            raise ModelError(f"Smoothed: alpha={alpha} must be above 0 and below 1")
        if min(n0, n, batch) < 1:
            raise ModelError(f"Smoothed: n0={n0}, n={n} and batch={batch} must be 1 or more")
        model = as_segmentation_model(network)
        super().__init__(
            _Votes(model, sigma, tau, n0, n, alpha, batch, seed),
            model.num_classes,
            name=name or f"{model.name}_smoothed",
        )
        self.classes = model.classes

    @property
    def certified_radius(self) -> float:
        """No perturbation of a smaller L2 norm changes a pixel that does not abstain."""
        votes: _Votes = self.network  # type: ignore[assignment]
        return float(votes.sigma * torch.special.ndtri(torch.tensor(votes.tau, dtype=torch.float64)))

    @property
    def defence(self) -> dict[str, object]:  # type: ignore[override]
        """The settings of the smoothing, see `SegmentationModel.defence`."""
        votes: _Votes = self.network  # type: ignore[assignment]
        settings = {name: getattr(votes, name) for name in ("sigma", "tau", "n0", "n", "alpha")}
        return {"seed": votes.seed, "parts": [{"class": "Smoothed", **settings}]}

    @property
    def undefended(self) -> SegmentationModel:  # type: ignore[override]
        """The network that is smoothed."""
        return self.network.model  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W) in [0, 1], see the class."""
        with_windows(self.network.model, self.windows)  # type: ignore[arg-type]
        return self._run(images)


class _Votes(nn.Module):
    """What a network finds under noise, counted and tested."""

    def __init__(
        self, model: SegmentationModel, sigma: float, tau: float, n0: int, n: int, alpha: float, batch: int, seed: int
    ) -> None:
        super().__init__()
        self.model, self.sigma, self.tau, self.n0, self.n = model, sigma, tau, n0, n
        self.alpha, self.batch, self.seed = alpha, batch, seed

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError(
                f"'{self.model.name}' is smoothed, and counts have no gradient: it can be a target, but no source\n"
                "attack the network without Smoothed"
            )
        needed = math.ceil(math.log(self.alpha / images[0, 0].numel()) / math.log(self.tau))
        if self.n < needed:
            height, width = images.shape[-2:]
            raise ModelError(
                f"Smoothed: with n={self.n} all pixels of an image of {height} x {width} would abstain: even if all of "
                f"its noisy images agree, tau={self.tau} and alpha={self.alpha} need n={needed} or more"
            )
        return torch.cat([self._one(image) for image in images])

    def _one(self, image: Tensor) -> Tensor:
        draws = draws_for(image, self.seed)
        votes = image.new_zeros(0)
        for classes, number in self._predictions(image, self.n0, draws):
            if not votes.numel():
                votes = image.new_zeros((number, *image.shape[-2:]))
            votes.scatter_add_(0, classes, torch.ones_like(classes, dtype=votes.dtype))
        found = votes.max(0)[1]
        agreeing = torch.zeros_like(found)
        for classes, _ in self._predictions(image, self.n, draws):
            agreeing += (classes == found).sum(0)
        # On the CPU, for it has float64 everywhere.
        certain = holm(at_least(self.n, self.tau)[agreeing.cpu()], self.alpha).to(image.device)
        share = (agreeing.to(image.dtype) + 1) / (self.n + 2)
        logits = torch.where(certain, share.logit(), 0)
        return torch.zeros_like(votes).scatter_(0, found[None], logits[None])[None]

    def _predictions(self, image: Tensor, count: int, draws: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        """The classes (b, H, W) that the network finds in batches of noisy images, and how many classes there are."""
        for start in range(0, count, self.batch):
            # One by one: PyTorch draws other numbers for a stack of images than for the images in turn.
            samples = range(min(self.batch, count - start))
            noise = self.sigma * torch.stack([torch.randn(image.shape, generator=draws) for _ in samples])
            logits = self.model(image + noise.to(image))
            if not logits.isfinite().all():
                raise ModelError(f"'{self.model.name}' gives NaN or infinite logits under noise of sigma={self.sigma}")
            yield logits.max(1)[1], logits.shape[1]


def at_least(n: int, tau: float) -> Tensor:
    """P[Binomial(n, tau) >= k] for k = 0, ..., n: p-values of a one-sided binomial test, (n + 1,) float64.

    Example:
        >>> at_least(2, 0.75).tolist()          # 1, 1 - 1/16, 9/16
        [1.0, 0.9375, 0.5625]
    """
    k = torch.arange(n + 1, dtype=torch.float64)
    total = torch.tensor(n + 1, dtype=torch.float64)
    ways = total.lgamma() - (k + 1).lgamma() - (n - k + 1).lgamma()
    mass = (ways + k * math.log(tau) + (n - k) * math.log1p(-tau)).exp()
    # From the smallest on, so that small sums are exact.
    return mass.flip(0).cumsum(0).flip(0).clamp(max=1)


def holm(p: Tensor, alpha: float) -> Tensor:
    """Which hypotheses are rejected by Holm's step-down procedure, at a family-wise error rate of alpha.

        reject the k-th smallest of m p-values if p_(j) <= alpha / (m - j + 1) for all j <= k

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6,
    1979.

    Args:
        p: p-values of any shape, float64.
        alpha: probability that a true hypothesis is among the rejected ones.

    Returns:
        bool, of the shape of `p`.

    Example:
        >>> holm(torch.tensor([0.04, 0.01, 0.03, 0.02]), 0.05)         # against 0.05 / 4, / 3, / 2, / 1
        tensor([False,  True, False, False])
    """
    values, order = p.flatten().sort()
    limits = alpha / torch.arange(len(values), 0, -1, dtype=torch.float64, device=p.device)
    rejected = torch.empty_like(order, dtype=torch.bool)
    rejected[order] = (values <= limits).cummin(0)[0]
    return rejected.view(p.shape)
