"""PNA on torch's own attention, against attention written out with constant weights, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import AttackError, Draws, FixedAttention, TokenGradients, changeable_nodes
from lightning_attack.attacks.source_transforms.source import TransformedSource
from tests.attacks.source_transforms.test_tokens import BATCH, FORMS, SIDE, Transformer, gradient, regularized


def fixed(strength):
    """Weights of attention of whose gradient a share is dropped."""
    return lambda x, what: strength * x.detach() + (1 - strength) * x if what == "attention" else x


def changed(model, transform):
    source = TransformedSource(model, [transform])
    return gradient(lambda x: source(x, Draws([7, 8]), 0))


def names_of(joined):
    return list(changeable_nodes(Transformer(joined), FixedAttention(), (SIDE, SIDE), BATCH))


CHOICES = {
    "all": (lambda joined: FixedAttention(), (fixed(1), fixed(1))),
    "a third": (lambda joined: FixedAttention(1 / 3), (fixed(1 / 3), fixed(1 / 3))),
    "from a depth on": (lambda joined: FixedAttention(start=0.5), (None, fixed(1))),
    "by name": (lambda joined: FixedAttention(nodes=names_of(joined)[:1]), (fixed(1), None)),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("joined", FORMS.values(), ids=FORMS)
def test_gradient_is_that_of_constant_weights(joined, choice):
    make, references = CHOICES[choice]
    logits, found = changed(Transformer(joined), make(joined))
    wanted_logits, wanted = gradient(Transformer(joined, *references))
    plain_logits, plain = gradient(Transformer(joined))
    assert torch.allclose(logits, plain_logits, rtol=1e-10, atol=1e-12)
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


class Pixels(nn.Module):
    """Attention whose keys are its values, or its queries, or both."""

    def __init__(self, places, reference=False):
        super().__init__()
        self.places, self.reference = places, reference

    def forward(self, x):
        tokens = 3 * x.flatten(2).mT[:, None]
        given = [tokens, tokens.flip(3).sin(), tokens.cos()]
        q, k, v = (given[place] for place in self.places)
        if self.reference:
            attended = (q @ k.mT / 3**0.5).softmax(-1).detach() @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return attended[:, 0].mT.reshape(x.shape)


@pytest.mark.parametrize("places", [(0, 1, 1), (0, 0, 1), (0, 1, 0), (0, 0, 0)], ids=str)
def test_values_keep_their_gradient_where_they_are_keys_or_queries_too(places):
    _, found = changed(Pixels(places), FixedAttention())
    _, wanted = gradient(Pixels(places, reference=True))
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def both(x, what):
    """What TGR and then PNA, or PNA and then TGR, do: of the gradient at the weights nothing is left."""
    return regularized((0.25, 0.75, 0.5))(fixed(1)(x, what), what)


@pytest.mark.parametrize("joined", FORMS.values(), ids=FORMS)
def test_together_with_regularized_tokens(joined):
    _, wanted = gradient(Transformer(joined, both))
    for transforms in ([FixedAttention(), TokenGradients()], [TokenGradients(), FixedAttention()]):
        source = TransformedSource(Transformer(joined), transforms)
        if joined is True and isinstance(transforms[0], TokenGradients):
            with pytest.raises(AttackError, match="give FixedAttention before TokenGradients"):
                gradient(lambda x, source=source: source(x, Draws([7, 8]), 0))
            continue
        _, found = gradient(lambda x, source=source: source(x, Draws([7, 8]), 0))
        assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
