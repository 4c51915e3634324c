"""The rewrites of a graph, each against the network as it was written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import pgd, transegpgd, vmi_fgsm
from lightning_attack.engine import masks, prepare
from lightning_attack.engine.convolution import Packed
from lightning_attack.engine.program import OneDNN, Program, rewritten
from lightning_attack.engine.trace import split, trace_forward, trace_joint
from tests.engine.compare import apart, both, check, noise, operators
from tests.live_memory import LiveMemory
from tests.precisions import needs_bfloat16

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


def test_a_convolution_that_is_called_twice():
    made = network(lambda x, conv: conv(conv(x).relu() + x), nn.Conv2d(3, 3, 3, padding=1))
    images = noise(2, 3, 8, 10)
    alone, forward, _ = operators(check(made, images), images)
    assert sum("pointwise" in name for name in alone) == sum("pointwise" in name for name in forward) == 2


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


@needs_bfloat16
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
    torch.manual_seed(0)
    layer.reset_parameters()  # not those of the time of collection, which nothing seeds
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
    forward, first, backward = split(trace_joint(trace_forward(made, (2, 3, 8, 8)), (2, 3, 8, 8)))
    images, gradient = noise(2, 3, 8, 8), noise(2, 2, 8, 8, seed=1)
    logits, *kept = forward(images)
    expected, expected_gradient = both(made, images, gradient)
    assert torch.equal(logits, expected)
    assert apart(backward(*kept, first(gradient)), expected_gradient) < 1e-6


def test_what_a_step_keeps():
    # 20 layers of 1 MB: of their results it is kept where they are above 0, in bytes, and nothing else.
    layers = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(20)]
    made = network(lambda x, first, *rest: nn.Sequential(first, *rest)(x), nn.Conv2d(3, 16, 1), *layers)
    program = Program(made, (1, 3, 128, 128), False, OneDNN(Packed()))
    program(noise(1, 3, 128, 128).requires_grad_())
    _, *kept = program.halves().forward(noise(1, 3, 128, 128))
    assert sum(one.nbytes for one in kept) == 20 * 2**18


def small(x, a, b):
    return b(F.max_pool2d(a(x).relu(), 3, 2, 1))


def forked(x, a, b):
    y = F.max_pool2d(a(x).relu(), 3, 2, 1)
    return b(y) + y[:, :4]


def skipping(x, a, b):
    y = a(x).relu()
    return b(F.interpolate(F.max_pool2d(y, 2), scale_factor=2) + y)


def signed(x, a, b):
    return b(F.max_pool2d(a(x), 3, 2, 1, ceil_mode=True).relu())


def squared(x, a, b):
    y = a(x).relu()
    return b(y * y)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (small, {("bool", 5), ("int32", 5)}),  # the mask of the maxima alone
        (forked, {("bool", 5), ("int32", 5)}),
        (skipping, {("bool", 10), ("int32", 5)}),  # the mask of what is pooled, which has another user
        (signed, {("bool", 6), ("int32", 6)}),
        (squared, {("float32", 10)}),  # the gradient needs the values
    ],
)
def test_masks_and_places_are_kept_where_values_are_not_needed(function, expected):
    made = network(function, nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1))
    images = noise(2, 3, 8, 10)
    (program,) = check(made, images)._programs.values()
    _, *kept = program.halves().forward(images)
    assert {(str(one.dtype)[6:], one.shape[-1]) for one in kept} == expected
    assert len(kept) == len(expected)


def enlarged(x):
    return F.interpolate(x.flatten(2), scale_factor=2).unflatten(2, (2 * x.shape[2], x.shape[3]))


def repeated(x):
    return x[..., None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


@pytest.mark.parametrize("end", [enlarged, repeated, lambda x: x.mean((0, 2, 3)).expand(2, 4).view(2, 4, 1, 1)])
def test_the_smallest_gradient_of_the_logits_may_be_no_image(end):
    check(network(lambda x, conv: end(conv(x).relu()), nn.Conv2d(3, 4, 3, padding=1)), noise(2, 3, 8, 10))


def test_masks_of_float64_inside_the_network():
    def function(x, conv):
        y = conv(x).double()
        return (y.relu() * 2 + (y + y.sigmoid() - 0.4).relu()).float()

    check(network(function, nn.Conv2d(3, 4, 3, padding=1)), noise(2, 3, 8, 10))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_masked_gradients_in_blocks(layout, kind, monkeypatch):
    monkeypatch.setattr(masks, "BLOCK", 100)
    gradient, results = (noise(2, 3, 9, 7, seed=seed).sub(0.5).to(kind) for seed in (0, 1))
    gradient[0, 0, 0] = torch.inf
    above = results.to(memory_format=layout) > 0
    expected = torch.where(above, gradient, 0)
    for own in (gradient.clone(), gradient.to(memory_format=torch.channels_last), gradient.mT.contiguous().mT):
        before = own.clone()
        assert torch.equal(masks.masked(own, above), expected)
        assert torch.equal(own, before)
        assert masks.masked_(own, above) is own
        assert torch.equal(own, expected)


@pytest.mark.parametrize(
    ("attack", "limit"), [(pgd(steps=2), 3.5), (vmi_fgsm(steps=1, samples=3), 3.6), (transegpgd(steps=2), 5.75)]
)
def test_what_an_attack_holds_at_once(attack, limit):
    """In logits of full size, which are resized from a fourth of it.

    These are the logits and their log-probabilities, or log-probabilities and gradient, for TranSegPGD also the same of
    the clean images; masks, and maps without classes. More is held with ReLU's results in place of masks (+1.9), with
    all terms of a divergence (+1.5), or with the gradient of the logits while the network runs backwards (+0.3).
    """
    wide = nn.Conv2d(32, 512, 1), nn.Conv2d(512, 512, 1)
    layers = [*(nn.Conv2d(32, 32, 3, padding=1) for _ in range(8)), *wide]

    def function(x, first, last, *layers):
        x = first(x)
        for layer in layers:
            x = layer(x).relu()
        return F.interpolate(last(x), scale_factor=4, mode="bilinear")

    made = network(function, nn.Conv2d(3, 32, 4, 4), nn.Conv2d(512, 32, 1), *layers)
    fast, images, labels = prepare(made), noise(1, 3, 256, 256), torch.zeros(1, 256, 256, dtype=torch.int64)
    attack(fast, images, labels, [0])
    with LiveMemory() as memory:
        attack(fast, images, labels, [0])
    logits = 32 * 256 * 256 * 4
    assert memory.peak <= limit * logits, memory.peak / logits
