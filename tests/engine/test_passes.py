"""The rewrites of a graph, each against the network as it was written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.engine.convolution import Packed
from lightning_attack.engine.program import Program, rewritten
from lightning_attack.engine.trace import split, trace_forward, trace_joint

from .compare import apart, both, check, noise, operators

pytestmark = pytest.mark.usefixtures("silent")


class Function(nn.Module):
    """A network written as a function of its layers and of images."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def network(function, *layers):
    """Frozen, with normalisations that have seen something, so that they change what they are given."""
    made = Function(function, *layers)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(noise(module.num_features, seed=3) - 0.5)
            module.running_var.copy_(noise(module.num_features, seed=4) + 0.5)
            if module.affine:
                module.weight.data.copy_(noise(module.num_features, seed=5) + 0.5)
                module.bias.data.copy_(noise(module.num_features, seed=6) - 0.5)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)),
        (nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)),
        (nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.BatchNorm2d(3, affine=False)),
        (nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3), nn.BatchNorm2d(6)),
        (nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, padding=1)),
    ],
)
def test_batch_norms_are_folded(layers):
    made, images = network(lambda x, a, b: b(a(x)), *layers), noise(2, 3, 8, 10)
    assert not any("batch_norm" in name for names in operators(check(made, images), images) for name in names)


def test_a_convolution_with_two_users_keeps_its_weights():
    made = network(lambda x, conv, norm: (y := conv(x)) * norm(y), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    check(made, noise(2, 3, 8, 10))


def test_sums_of_stacked_tensors_are_additions():
    made = network(
        lambda x, a, b: torch.stack([a(x), b(x), x], 0).sum(0), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
    )
    images = noise(2, 3, 8, 10)
    assert not any("stack" in name or "sum" in name for name in operators(check(made, images), images)[0])
    # Sums over another dimension than that of the stack are none.
    check(network(lambda x: torch.stack([x, 2 * x], 1).sum(2)), images)
    check(network(lambda x: torch.stack([x, 2 * x], 0).sum([0, 1])[:, None]), images)


def test_bfloat16_is_for_products_and_what_lies_between():
    def function(x, a, b):
        x = F.group_norm(a(x - 0.25), 2).relu()
        return F.interpolate(b(x), scale_factor=2, mode="bilinear")

    made, images = network(function, nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)), noise(2, 3, 9, 7)
    check(made, images, 2e-2, 5e-2, precision="bf16")
    graph = rewritten(made, tuple(images.shape), bfloat16=True).graph
    types = {str(node.target): node.meta["val"].dtype for node in graph.nodes
             if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor)}  # fmt: skip
    assert types["aten.sub.Tensor"] == types["aten.upsample_bilinear2d.default"] == torch.float32
    assert types["aten.convolution.default"] == types["aten.relu.default"] == torch.bfloat16


@pytest.mark.parametrize("activation", [F.relu, F.relu6, F.hardtanh, F.silu, F.hardswish, F.gelu, torch.sigmoid])
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1), nn.ConvTranspose2d(3, 5, 3, stride=2)]
)
def test_activations(activation, layer):
    images = noise(2, 3, 9, 7)
    alone, forward, _ = operators(
        check(network(lambda x, conv: 3 * activation(4 * conv(x) - 0.5), layer), images), images
    )
    made = network(lambda x, conv: activation(conv(x)), layer)
    alone, forward, _ = operators(check(made, images), images)
    if activation is not torch.sigmoid:
        assert len(alone) == 1, alone
    if activation in (F.relu, F.relu6, F.hardtanh):
        assert len(forward) == 1, forward


def test_residual_sums():
    def block(x, a, b, c):
        x = a(x).relu()
        return c((b(x) + x).relu())

    images = noise(2, 3, 9, 7)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
    alone, forward, backward = operators(check(network(block, *layers), images), images)
    assert len(alone) == len(forward) == 3
    assert sum("pointwise" in name for name in backward) == 3
    assert not any(name.startswith("add") for name in backward)


def test_a_sum_may_take_the_memory_of_a_branch():
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
    images = noise(2, 3, 9, 7)
    alone = operators(check(network(lambda x, a, b: (a(x).relu() + b(x)).relu(), *layers), images), images)[0]
    assert [name.endswith("pointwise_.binary") for name in alone] == [False, True]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, conv: conv(x) + x,  # the sum must not take the memory of the convolution's input
        lambda x, conv: (y := conv(x).relu()) + conv(y) + y,
        lambda x, conv: (y := conv(x)) * y + y.relu() * y,
        lambda x, conv: conv(conv(x).mul_(2)).add_(x),
        lambda x, conv: (
            torch.cat([conv(x), x], 1).flatten(2).transpose(1, 2).softmax(1).transpose(1, 2).unflatten(2, (8, 8))
        ),
        lambda x, conv: F.interpolate(conv(x), scale_factor=2, mode="bilinear") + F.interpolate(x, scale_factor=2),
        lambda x, conv: (
            conv(x) * F.adaptive_avg_pool2d(x, 1).sigmoid() + F.max_pool2d(x, 3, 1, 1) + F.avg_pool2d(x, 3, 1, 1)
        ),
        lambda x, conv: F.layer_norm(conv(x), (8, 8)) + F.group_norm(x, 3) + F.dropout(x, training=False),
        lambda x, conv: conv(x[..., ::2, 1:]).roll(1, 2) + F.pad(x, (1, -2, 0, -4)),
    ],
)
def test_what_no_rewrite_knows_is_run_as_it_is(function):
    made = network(function, nn.Conv2d(3, 3, 3, padding=1))
    images = noise(2, 3, 8, 8)
    fast = check(made, images)
    before = images.clone()
    asked = images.clone().requires_grad_()
    logits = fast(asked)
    weights = noise(*logits.shape)
    kept = weights.clone()
    first = torch.autograd.grad(logits, asked, weights, retain_graph=True)[0].clone()
    # What was kept for the backward pass, the images and the incoming gradient must have survived it.
    assert torch.equal(torch.autograd.grad(logits, asked, weights)[0], first)
    assert torch.equal(weights, kept)
    assert torch.equal(asked.detach(), before)


def test_the_halves_keep_what_both_need_and_no_more():
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
    made = network(lambda x, a, b: b(F.relu6(a(x))), *layers)
    forward, backward = split(trace_joint(trace_forward(made, (2, 3, 8, 8)), (2, 3, 8, 8)))
    images, gradient = noise(2, 3, 8, 8), noise(2, 2, 8, 8, seed=1)
    logits, *kept = forward(images)
    expected, expected_gradient = both(made, images, gradient)
    assert torch.equal(logits, expected)
    assert apart(backward(*kept, gradient), expected_gradient) < 1e-6


def test_what_a_step_keeps():
    # 20 layers of 1 MB: their results are kept, of which the last are the logits too, and nothing else.
    layers = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(20)]
    made = network(lambda x, first, *rest: nn.Sequential(first, *rest)(x), nn.Conv2d(3, 16, 1), *layers)
    program = Program(made, (1, 3, 128, 128), False, Packed())
    program(noise(1, 3, 128, 128).requires_grad_())
    kept = program._halves[0](noise(1, 3, 128, 128))
    assert sum(one.numel() * one.element_size() for one in kept) == 21 * 2**20
