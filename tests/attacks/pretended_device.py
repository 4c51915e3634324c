"""A device that is pretended on the CPU, and sees whenever the host would have to wait for it."""

import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import lightning_attack
from tests.engine.refused import refused

DEVICE = "meta"
"""A device that torch knows without hardware: here it has values."""
FOR_THE_HOST = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""What torch itself says of operators whose result, or the size of it, the host has to read off the device."""
PACKAGE = f"{Path(lightning_attack.__file__).parent}/"
COMPUTED = {torch.ops.aten._conj.default: torch.ops.aten.conj_physical.default}
"""Instead of an operator that only marks a tensor one that computes: `OnDevice` hides such marks."""


class OnDevice(Tensor):
    """A tensor that says it is on the device; `host` has its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host):
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, host.size(), device=DEVICE, **layout)
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on the pretended device, out of its context")

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self):
        return self.cpu().numpy()


class PretendedDevice(TorchDispatchMode):
    """While it lasts, `one.to("meta")` brings tensors and modules to a device that computes on the CPU.

    `waits` says what the host would have waited for if the device were a CUDA one, each as "operator in file:line":

    * operators that answer to the host: a number (`item`, `if tensor`, ...), or as many values as the data say
      (`nonzero`, `unique`, ...);
    * indexing with a mask, with a list, or with a tensor of the host;
    * copies to the host, and those from the host but of pinned memory with `non_blocking`. Setting a single value to a
      number is one: CUDA copies it from a tensor of the host.

    As on CUDA it is an error to compute with tensors of the host and of the device, but for single numbers.

    `refused` has the names of the operators that add in no fixed order on CUDA.
    """

    def __enter__(self):
        self.waits, self.refused = [], set()
        self._stack = ExitStack()
        self._stack.enter_context(_FromHost())
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, wanted = func.overloadpacket.__name__, kwargs.get("device")
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        of_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        of_host = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
        if any(tensor.is_meta for tensor in of_host):
            raise RuntimeError(f"{name}: a tensor was made on the device unseen")
        if name in ("is_pinned", "_pin_memory") and of_host:
            return _pinned(name, of_host[0])

        to_device = bool(of_device) if wanted is None else torch.device(wanted).type == DEVICE
        if name in ("_to_copy", "copy_"):
            goal = isinstance(tensors[0], OnDevice) if name == "copy_" else to_device
            waits = goal != isinstance(tensors[-1], OnDevice) and not (goal and _goes_on(tensors[-1], args, kwargs))
        elif name.strip("_").startswith("index") and isinstance(args[1], list | tuple):
            masks = [place for place in args[1] if place is not None and place.dtype == torch.bool]
            waits = bool(of_device) and bool(of_host or masks)
        else:
            waits = bool(of_device) and _is_for_the_host(func)
            if of_device and any(tensor.ndim for tensor in of_host):
                raise RuntimeError(f"{name}: tensors of the host and of the device")
        if waits:
            self.waits.append(f"{name} in {_line()}")

        if of_device and refused(func, args):
            self.refused.add(name)
        if wanted is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        result = COMPUTED.get(func, func)(*tree_map(_host, args), **tree_map(_host, kwargs))
        return tree_map(_on_device, result) if to_device else result


class _FromHost(TorchFunctionMode):
    """Ways from numbers of the host to the device that torch goes unseen, brought into sight as CUDA goes them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device")) == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            place = args[1] if isinstance(args[1], tuple) else (args[1],)
            place = tuple(torch.tensor(one) if isinstance(one, list) else one for one in place)
            values = (one if isinstance(one, Tensor) else torch.tensor(one, dtype=args[0].dtype) for one in args[2:])
            args = (args[0], place, *values)
        return func(*args, **kwargs)


def _goes_on(source, args, kwargs):
    """Whether the host goes on while a tensor of it is copied."""
    return getattr(source, "pinned", False) and kwargs.get("non_blocking", len(args) > 2 and args[2])


def _pinned(name, tensor):
    """CPU tensors are told to be pinned by a mark."""
    if name == "is_pinned":
        return getattr(tensor, "pinned", False)
    copied = tensor.clone()
    copied.pinned = True
    return copied


def _host(value):
    return value.host if isinstance(value, OnDevice) else value


def _on_device(value):
    return OnDevice(value) if isinstance(value, Tensor) else value


@cache
def _is_for_the_host(func):
    return not FOR_THE_HOST.isdisjoint(func.tags)


def _line():
    """The line of the package that asked."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "a test"
