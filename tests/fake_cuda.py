"""CUDA without a card: tensors without values that say they are on CUDA, so that torch chooses its operators for it."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_attack.engine import precision, trace

CUDA = torch.device("cuda", 0)
ATTENTION = F.scaled_dot_product_attention  # tests patch it
aten = torch.ops.aten
LIFTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)
PINNED = (aten.is_pinned.default, aten._pin_memory.default)


class FakeCuda(FakeTensorMode):
    """A mode in which tensors of the host count as being on CUDA if `moved` says so; it knows no values.

    As on CUDA it is an error to compute with tensors of the host and of the device, but for single numbers.
    """

    def __init__(self, moved=lambda tensor: True, **settings):
        super().__init__(**settings | {"allow_non_fake_inputs": True})
        self.moved, self._known = moved, {}
        converter = self.fake_tensor_converter
        usual = converter.from_real_tensor
        converter.from_real_tensor = lambda mode, tensor, *given, **more: (
            self.on_device(tensor) if moved(tensor) else usual(mode, tensor, *given, **more)
        )

    def on_device(self, tensor):
        if id(tensor) not in self._known:
            with no_dispatch():
                self._known[id(tensor)] = tensor, FakeTensor(self, tensor.detach().to("meta"), CUDA)
        return self._known[id(tensor)][1]

    def move(self, network):
        """What `network.to("cuda")` does, and its values are lost."""
        for part in network.modules():
            for tensors in (part._parameters, part._buffers):
                tensors.update({name: self.on_device(tensor) for name, tensor in tensors.items() if tensor is not None})
        return network

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in LIFTS and not isinstance(args[0], FakeTensor) and self.moved(args[0]):
            return self.on_device(args[0])  # the mode itself would take it for a new tensor of the host
        if func in PINNED:
            return func is aten.is_pinned.default or args[0].clone()
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Backward(FakeTensorMode):
    """A mode that makes tensors of the host where CUDA ones are asked for: autograd runs for CUDA with a card only."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if kwargs and kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return super().__torch_dispatch__(func, types, args, kwargs)


@contextmanager
def pretended(network):
    """Inside the `with` block, the engine traces as if the network were on CUDA, where `network.to("cuda")` brings it.

    Weights keep their values and stay where they are, so that the graphs, once made, can be run: without values by
    `without_values`, which finds tensors of different devices, and on the CPU in `on_the_host`.
    """
    weights = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    mode, traced, first = trace.FakeTensorMode, trace.traced, []

    def of_network(function, *shapes, device=CUDA, **more):
        if not first:
            first.append(FakeCuda(lambda tensor: id(tensor) in weights))
            trace.FakeTensorMode = lambda **_: first[0]
            return traced(function, *shapes, device=device, **more)
        trace.FakeTensorMode = _Backward
        module = traced(function, *shapes, device=device, **more)
        for node in module.graph.nodes:
            if "device" in node.kwargs:
                node.kwargs = {**node.kwargs, "device": CUDA}
        module.recompile()
        return module

    trace.traced = precision.traced = of_network
    try:
        yield
    finally:
        trace.FakeTensorMode, trace.traced, precision.traced = mode, traced, traced


def on_cuda(network, images):
    """What a network gives for images of this shape, both on CUDA, without values; the network loses its own."""
    with FakeCuda(lambda tensor: False) as mode:
        return mode.move(network)(torch.empty(images.shape, device=CUDA))


class OnTheHost(TorchDispatchMode):
    """While it lasts, graphs made for CUDA run on the CPU: what is made there is made here."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return COMPUTED.get(func, func)(*args, **kwargs)


def _attention(query, key, value, bias, keeps, dropout=0.0, causal=False, scale=None):
    result = ATTENTION(query, key, value, bias, dropout, causal, scale=scale)
    # Without what its gradient needs, the operator has none.
    logsumexp = torch.zeros(query.shape[:3] if keeps else (*query.shape[:2], 0))
    return result, logsumexp, torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)


def _attention_backward(gradient, query, key, value, bias, result, logsumexp, *_, scale=None):
    assert logsumexp.numel(), "attention was run without what its gradient needs"
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    shares = (query @ key.mT * scale + (0 if bias is None else bias)).softmax(-1)
    change = shares * (gradient @ value.mT - (gradient * result).sum(-1, keepdim=True))
    return change @ key * scale, change.mT @ query * scale, shares.mT @ gradient, None


def _batch_norm(x, weight, bias, mean, variance, training, *sizes):
    return *aten.native_batch_norm(x, weight, bias, mean, variance, training, *sizes), torch.zeros(0, dtype=torch.uint8)


COMPUTED = {
    aten.cudnn_batch_norm.default: _batch_norm,
    aten._scaled_dot_product_efficient_attention.default: _attention,
    aten._scaled_dot_product_efficient_attention_backward.default: _attention_backward,
}
"""Operators that CUDA alone has."""
