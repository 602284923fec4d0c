"""Tensors from host memory to where they are computed with, without a wait of the host's."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``, any shape and dtype.

    A copy from pageable memory to a GPU makes the host wait until the GPU has come that far. So it goes through
    pinned memory, which torch keeps for the next time and does not hand out before the copy is over.
    """
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
