"""Giving the GPU's memory back during a pause, and taking it again. Moves bits, changes none."""

from __future__ import annotations

import torch

from engine.hardware.monitor import host_memory
from engine.training.kit import Kit


def room_on_host(kit: Kit) -> tuple[float, float]:
    """GiB that leaving the GPU needs on the host, and GiB free there."""
    needed = sum(p.numel() * p.element_size() for p in kit.transformer.parameters()) / 2**30
    used, total, _ = host_memory()
    return needed, total - used


def leave_gpu(kit: Kit) -> None:
    """Move base, adapter and optimizer state to host memory and free the GPU."""
    _move(kit, torch.device("cpu"))
    kit.compute.free_unused()


def return_to_gpu(kit: Kit) -> None:
    """Move everything back to where it trained."""
    _move(kit, kit.compute.device)


def _move(kit: Kit, device: torch.device) -> None:
    kit.transformer.to(device)
    for state in kit.optimizer.state.values():
        for name, value in state.items():
            # AdamW keeps its step counter on the CPU on purpose; only what lives on a GPU moves.
            if isinstance(value, torch.Tensor) and value.dim():
                state[name] = value.to(device)
