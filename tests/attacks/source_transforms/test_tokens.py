"""TGR against its formula, entry by entry, on a small transformer in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from lightning_attack.attacks import Draws, FixedAttention, TokenGradients, changeable_nodes
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.models import ExportedModel

BATCH, SIDE, WIDTH, HEADS = 2, 4, 6, 2


class Regularized(Function):
    """The gradient times a factor, 0 where a loop says so; and of what remains a share of the gradient itself."""

    @staticmethod
    def forward(ctx, x, factor, zero, strength):
        ctx.factor, ctx.zero, ctx.strength = factor, zero, strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        result = ctx.factor * gradient
        for row, values in enumerate(gradient):
            ctx.zero(values, result[row])
        return ctx.strength * result + (1 - ctx.strength) * gradient, None, None, None


def tokens(gradient, result):
    """Of one image or head, (tokens, channels)."""
    for channel in range(gradient.shape[1]):
        column = gradient[:, channel].tolist()
        for extreme in (max(column), min(column)):
            result[column.index(extreme), channel] = 0


def maps(gradient, result):
    """Of one image, (heads, rows, columns)."""
    for head in range(len(gradient)):
        entries = gradient[head].flatten().tolist()
        for extreme in (max(entries), min(entries)):
            row, column = divmod(entries.index(extreme), gradient.shape[2])
            result[head, row, :] = 0
            result[head, :, column] = 0


def regularized(factors, strength=1.0):
    """What TGR does to the gradients of attention, queries, keys and values, and MLPs."""

    def change(x, what):
        factor = factors[("attention", "qkv", "mlp").index(what)]
        if what == "qkv":  # head by head
            return Regularized.apply(x.flatten(0, 1), factor, tokens, strength).view_as(x)
        return Regularized.apply(x, factor, maps if what == "attention" else tokens, strength)

    return change


class Block(nn.Module):
    """Attention with keys and values of fewer tokens than queries, and an MLP, each a residual branch.

    Args:
        joined: whether attention is torch's own; "scattered" for tensors that no fused one takes, "einsum" and
            "turned" for products that are written otherwise.
        reference: writes attention out, and changes `attention`, `qkv` and `mlp`.
    """

    def __init__(self, joined, reference=None):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, WIDTH))
        self.joined, self.reference = joined, reference

    def change(self, x, what):
        return x if self.reference is None else self.reference(x, what)

    def heads(self, x):
        return x.view(len(x), x.shape[1], HEADS, -1).transpose(1, 2)

    def forward(self, x):
        q, (k, v) = self.heads(self.q(x)), (self.heads(one) for one in self.kv(x[:, ::2]).chunk(2, -1))
        if self.joined in ("einsum", "turned") and self.reference is None:
            weights = torch.einsum("bhid,bhjd->bhij", q, k).mul((WIDTH // HEADS) ** -0.5).softmax(-1)
            attended = (
                torch.einsum("bhij,bhjd->bhid", weights, v)
                if self.joined == "einsum"
                else (v.mT @ weights.transpose(-2, -1)).mT
            )
        elif self.joined and self.reference is None:
            if self.joined == "scattered":  # so that no fused attention takes them
                q, k, v = (one.mT.contiguous().mT for one in (q, k, v))
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            q, k, v = (self.change(one, "qkv") for one in (q, k, v))
            weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1)
            attended = self.change(weights, "attention") @ v
        x = x + self.out(attended.transpose(1, 2).reshape(len(x), -1, WIDTH))
        return x + self.change(self.mlp(x), "mlp")


class Transformer(nn.Module):
    """Two blocks, with a reference for each, or one for both."""

    def __init__(self, joined=False, *references):
        super().__init__()
        references = 2 * (references or (None,))
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, WIDTH, 1)
        self.blocks = nn.ModuleList(Block(joined, reference) for reference in references[:2])
        self.double().requires_grad_(False).eval()
        for weight in self.blocks.parameters():
            weight.mul_(2)

    def forward(self, x):
        x = self.first(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2).reshape(len(x), WIDTH, SIDE, SIDE)


def gradient(source):
    x = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x.requires_grad_()
    logits = source(x)
    weights = torch.linspace(-1, 2, logits.numel(), dtype=x.dtype).view_as(logits)
    return logits, torch.autograd.grad((logits * weights.sin()).sum(), x)[0]


FORMS = {"apart": False, "joined": True, **{name: name for name in ("scattered", "einsum", "turned")}}
"""Of attention."""


@pytest.mark.parametrize("joined", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("factors", "strength"), [((0.25, 0.75, 0.5), 1.0), ((1.0, 0.5, 0.0), 0.4)], ids=["paper", "others"]
)
def test_gradient_is_that_of_the_formula(joined, factors, strength):
    source = TransformedSource(Transformer(joined), [TokenGradients(*factors, strength=strength)])
    logits, found = gradient(lambda x: source(x, Draws([7, 8]), 0))
    wanted_logits, wanted = gradient(Transformer(joined, regularized(factors, strength)))
    plain_logits, plain = gradient(Transformer(joined))
    assert torch.allclose(logits, plain_logits, rtol=1e-10, atol=1e-12)
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-2 * plain.abs().max()


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_blocks_are_chosen_by_depth_and_by_name(joined):
    """From 0.5 of the depth on are the end of the first block's MLP and the second block's attention."""
    change = regularized((0.25, 0.75, 0.5))

    def mlp(x, what):
        return change(x, what) if what == "mlp" else x

    first, second, _, fourth = changeable_nodes(Transformer(joined), TokenGradients(), (SIDE, SIDE), BATCH)
    for transform, references in (
        (TokenGradients(start=0.5), (mlp, change)),
        (TokenGradients(nodes=[first, second]), (change, None)),
        (TokenGradients(nodes=[fourth]), (None, mlp)),
    ):
        source = TransformedSource(Transformer(joined), [transform])
        _, found = gradient(lambda x, source=source: source(x, Draws([7, 8]), 0))
        _, wanted = gradient(Transformer(joined, *references))
        assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def test_broken_gradients_stay_broken():
    x = torch.zeros(1, 3, 1, requires_grad=True)
    given = torch.tensor([[[1.0], [torch.nan], [2.0]]])
    change = TokenGradients()._of_tokens(factor=1.0, channels=-1)
    assert torch.autograd.grad(change(x), x, given)[0].isnan().any()


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
@pytest.mark.parametrize("transform", [TokenGradients(), FixedAttention()], ids=lambda one: type(one).__name__)
def test_an_exported_transformer_has_the_same_gradient(joined, transform, tmp_path):
    model = Transformer(joined)
    program = torch.export.export(model, (torch.rand(BATCH, 3, SIDE, SIDE, dtype=torch.float64),))
    torch.export.save(program, path := tmp_path / "model.pt2")
    found = []
    for one in (model, ExportedModel(str(path)).network):
        source = TransformedSource(one, [transform])
        found.append(gradient(lambda x, source=source: source(x, Draws([7, 8]), 0))[1])
    plain = gradient(model)[1]
    assert (found[0] - found[1]).abs().max() <= 1e-10 * plain.abs().max()
    assert (found[0] - plain).abs().max() > 1e-2 * plain.abs().max()


def test_errors():
    with pytest.raises(ValueError, match="qkv=2: must be between 0 and 1"):
        TokenGradients(qkv=2)
    source = TransformedSource(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).double(), [TokenGradients()])
    with pytest.raises(ValueError, match=r"TokenGradients changes attention with a softmax, and .* has none"):
        gradient(lambda x: source(x, Draws([7, 8]), 0))
