"""Giving the GPU's memory back during a pause, and taking it again. Moves bits, changes none."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from engine.hardware.monitor import host_memory
from engine.training.kit import Kit

MARGIN_GB = 2.0
"""Host memory that must stay free beside what leaves the GPU."""


def room_on_host(kit: Kit) -> tuple[float, float]:
    """GiB that leaving the GPU needs on the host, and GiB free there."""
    weights = sum(p.numel() * p.element_size() for p in kit.transformer.parameters())
    states = sum(v.numel() * v.element_size() for v in _states(kit))
    used, total, _ = host_memory()
    return (weights + states) / 2**30 + MARGIN_GB, total - used


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
            if _moves(value):
                state[name] = value.to(device)


def _states(kit: Kit) -> Iterator[torch.Tensor]:
    return (value for state in kit.optimizer.state.values() for value in state.values() if _moves(value))


def _moves(value: object) -> bool:
    # AdamW keeps its step counter on the CPU on purpose; paged states are the driver's to move.
    return isinstance(value, torch.Tensor) and bool(value.dim()) and not getattr(value, "is_paged", False)
