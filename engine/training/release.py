"""Giving the GPU's memory back during a pause, and taking it again. Moves bits, changes none.

Frozen weights are most of what is there, and none of them needs to be saved: streamed blocks have their copy in host
memory, the others are read again from disk on the way back where the base can be. What is left to copy are adapters,
optimizer states and the small first and last layers: well under a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from engine.hardware.host import host_memory
from engine.memory.frozen import Resident
from engine.memory.streaming import block_bytes_on_device, block_on
from engine.training.kit import Kit

MARGIN_GB = 2.0
"""Host memory that must stay free beside what leaves the GPU."""


@runtime_checkable
class Leaves(Protocol):
    """A part of a run that knows how to leave the GPU: the blocks' source, modulation layers, offloaded inputs."""

    def host_bytes(self) -> int:
        """Host memory that leaving takes."""
        ...

    def leave(self) -> None:
        """Be off the GPU; doing so again, or after a return that failed half-way, is no error."""
        ...

    def come_back(self) -> None:
        """Be on the GPU again; raises torch.OutOfMemoryError where others have taken it."""
        ...


def room_on_host(kit: Kit) -> tuple[float, float]:
    """GiB that leaving the GPU needs on the host, and GiB free there."""
    source = getattr(kit.transformer, "source", None)
    resident = source.blocks if isinstance(source, Resident) else []
    tensors = [*kit.transformer.parameters(), kit.lora.weights, kit.lora.gradients, *_states(kit)]
    needed = sum(part.host_bytes() for part in _parts(kit)) + sum(map(block_bytes_on_device, resident))
    needed += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    used, total, _ = host_memory()
    return needed / 2**30 + MARGIN_GB, total - used


def leave_gpu(kit: Kit) -> None:
    """Move adapter, optimizer state and what is not to be had elsewhere to host memory, and free the GPU."""
    if kit.recorded is not None:
        kit.recorded.forget()  # recordings hold memory of their own, and read where things are now
    for part in _parts(kit):
        part.leave()
    _move(kit, torch.device("cpu"))
    kit.compute.free_unused()


@contextlib.contextmanager
def states_on_host(kit: Kit, attempt: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Keep the optimizer's states in host memory while inside: sampling needs none of them.

    Args:
        attempt: does what it is given, however often it has to: the room may be taken by then.
    """
    _move_states(kit, torch.device("cpu"))
    kit.compute.free_unused()
    try:
        yield
    finally:
        attempt(lambda: _move_states(kit, kit.compute.device))


def return_to_gpu(kit: Kit) -> None:
    """Be where it trained, everything with the same bits.

    Raises:
        torch.OutOfMemoryError: others have taken the room; :func:`leave_gpu` then gives back what was taken.
    """
    # The largest first: if there is no room, little was moved.
    for part in _parts(kit):
        part.come_back()
    _move(kit, kit.compute.device)


def _parts(kit: Kit) -> Iterator[Leaves]:
    """Everything that leaves by itself: the transformer's own parts, then the kit's, each once."""
    names = ("source", "conditioning", "offload")
    found = [getattr(kit.transformer, name, None) for name in names] + list(vars(kit).values())
    seen: set[int] = set()
    for part in found:
        if isinstance(part, Leaves) and id(part) not in seen:
            seen.add(id(part))
            yield part


def _move(kit: Kit, device: torch.device) -> None:
    kit.transformer.to(device)
    source = getattr(kit.transformer, "source", None)
    if isinstance(source, Resident):
        for block, weights in enumerate(source.blocks):
            source.blocks[block] = block_on(weights, device)
    kit.lora.move(device)
    _move_states(kit, device)


def _move_states(kit: Kit, device: torch.device) -> None:
    for state in kit.optimizer.state.values():
        for name, value in state.items():
            if _moves(value):
                state[name] = value.to(device)


def _states(kit: Kit) -> Iterator[Tensor]:
    return (value for state in kit.optimizer.state.values() for value in state.values() if _moves(value))


def _moves(value: object) -> bool:
    # AdamW keeps its step counter on the CPU on purpose; paged states are the driver's to move.
    return isinstance(value, torch.Tensor) and bool(value.dim()) and not getattr(value, "is_paged", False)
