"""The loss of the engine against torch's own, in float64."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.engine import cross_entropy
from tests.engine.compare import apart, noise


@pytest.mark.parametrize("classes", [2, 15, 16, 21])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_losses_and_gradients(classes, layout):
    logits = (20 * noise(2, classes, 6, 5) - 10).contiguous(memory_format=layout).requires_grad_()
    labels = (noise(2, 6, 5, seed=1) * classes).long()
    labels[0, :2] = 255
    weights = noise(2, 6, 5, seed=2) - 0.3
    losses, log_probs = cross_entropy(logits, labels)
    exact = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, labels, ignore_index=255, reduction="none")
    assert apart(losses, expected) < 1e-6
    assert apart(log_probs, exact.log_softmax(1)) < 1e-6
    (gradient,) = torch.autograd.grad(losses, logits, weights)
    assert apart(gradient, torch.autograd.grad(expected, exact, weights.double())[0]) < 1e-6
    assert gradient[0, :, :2].abs().max() == 0
    assert not log_probs.requires_grad


def test_nothing_labelled_and_certain_pixels():
    logits = torch.tensor([[[[200.0, 0.0]], [[-200.0, 0.0]]]], requires_grad=True)
    losses, _ = cross_entropy(logits, torch.tensor([[[1, 255]]]))
    assert losses.tolist() == [[[400.0, 0.0]]]
    assert torch.autograd.grad(losses.sum(), logits)[0].flatten().tolist() == [1.0, 0.0, -1.0, 0.0]


def test_labels_that_are_no_class_are_refused():
    with pytest.raises((RuntimeError, IndexError)):
        cross_entropy(torch.zeros(1, 2, 1, 1), torch.tensor([[[2]]]))
