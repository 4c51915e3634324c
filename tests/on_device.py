"""Lightning's trainer on the pretended device, with a process group that knows tensors of the device only."""

from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves

from lightning_attack.predict.cost import PeakMemory
from tests.attacks.pretended_device import DEVICE, OnDevice, PretendedDevice


class DeviceOnly(PretendedDevice):
    """Counts what processes tell each other in `reduced`; as with NCCL, tensors of the host are an error."""

    reduced = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d" and func.overloadpacket.__name__ != "barrier":
            tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            if not all(isinstance(tensor, OnDevice) for tensor in tensors):
                raise RuntimeError("No backend type associated with device type cpu")
            self.reduced += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Accelerator(CPUAccelerator):
    def setup_device(self, device):
        pass


class _Strategy(DDPStrategy):
    """One process of DDP, whose module is on the device; objects and barriers, which torch sees to, are left out."""

    @property
    def root_device(self):
        return torch.device(DEVICE)

    def setup_distributed(self):
        self.set_world_ranks()
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

    def _setup_model(self, model):
        return model

    def determine_ddp_device_ids(self):
        return None

    def broadcast(self, obj, src=0):
        return obj

    def barrier(self, *names, **others):
        pass


@contextmanager
def trainer_on_device(monkeypatch, **settings):
    """A trainer on the pretended device, and the device, inside the `with` block."""
    # What is asked of the device itself: to be done before the time is taken, and its memory.
    monkeypatch.setattr("lightning_attack.predict.batch_attack.clock", lambda images: 0.0)
    monkeypatch.setattr(PeakMemory, "begin", lambda self, device: None)
    monkeypatch.setattr(PeakMemory, "end", lambda self, device: None)
    if distributed.is_initialized():  # Lightning leaves the group of an earlier run in this process behind
        distributed.destroy_process_group()
    try:
        with DeviceOnly() as device:
            yield quiet_trainer(accelerator=_Accelerator(), strategy=_Strategy(), **settings), device
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def quiet_trainer(**settings):
    settings = {"logger": False, "use_distributed_sampler": False} | settings  # it would shuffle otherwise
    return Trainer(devices=1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                   **settings)  # fmt: skip
