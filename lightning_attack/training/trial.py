"""`check_single`: can the network learn from one photo at a time?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attack.models.wrapper import ModelError, SegmentationModel


def check_single(network: SegmentationModel, image: Tensor) -> None:
    """Show a network one image, as a step of training with a batch of one does; its statistics stay as they are.

    Args:
        network: the network.
        image: (3, H, W) in [0, 1].

    Raises:
        ModelError: a batch normalisation sees a single value per channel, as behind a pooling over the whole image, and
            cannot compute a variance.
    """
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # dropout must not shift the numbers of the training
            network.outputs(image[None])
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ModelError(
            f"network '{network.name}' cannot learn from one photo at a time: a batch normalisation in it sees one "
            "value per channel (as after a pooling over the whole photo)\n"
            "give --data.batch_size=2 or more (on several devices, each needs 2)"
        ) from error
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])
