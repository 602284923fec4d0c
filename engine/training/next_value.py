"""Which value to try next where a card's memory is short, or where some of it lies idle. Pure arithmetic, torch-free.

Values come as lines of a configuration: "memory.blocks_to_swap = 24".
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import RunConfig
from engine.memory.plan import make_plan

SPARE_GB = 1.0
"""GiB of the card that are left alone where blocks come back to it."""

GIB = 2**30


def to_free(config: RunConfig, sizes: Sequence[int], free_gb: float) -> tuple[str, ...]:
    """What would free ``free_gb`` of the card, the first of it that costs least time; nothing where all is done.

    Args:
        sizes: bytes of each block of the base.
    """
    training, memory = config.training, config.memory
    if training.gradient_checkpointing in ("none", "attention"):
        return ('training.gradient_checkpointing = "full"',)
    count = blocks_for(sizes, memory.blocks_to_swap, free_gb)
    if count:
        return (f"memory.blocks_to_swap = {count}",)
    if training.gradient_checkpointing == "full":
        return ('training.gradient_checkpointing = "offload"',)
    if memory.precision == "auto":
        return ('memory.precision = "int8"',)
    if training.batch_size > 1:
        micro = training.batch_size // 2
        rest = -(-training.batch_size // micro)
        return f"training.batch_size = {micro}", f"training.accumulation = {training.accumulation * rest}"
    return ()


def to_use(config: RunConfig, sizes: Sequence[int], idle_gb: float) -> tuple[str, ...]:
    """Fewer blocks to stream where ``idle_gb`` of the card are not in use; nothing where no block fits in there."""
    now = config.memory.blocks_to_swap
    room = (idle_gb - SPARE_GB) * GIB
    held = make_plan(sizes, now).device_bytes
    fits = [count for count in range(now) if make_plan(sizes, count).device_bytes - held <= room]
    return (f"memory.blocks_to_swap = {fits[0]}",) if fits else ()


def blocks_for(sizes: Sequence[int], now: int, free_gb: float) -> int:
    """The least number of blocks to stream that frees ``free_gb`` against ``now``; 0 where no number frees anything.

    Where none frees so much it is the one that frees most. A ring takes memory of its own: a few may free nothing.
    """
    held = make_plan(sizes, now).device_bytes
    freed = {count: held - make_plan(sizes, count).device_bytes for count in range(now + 1, len(sizes) + 1)}
    enough = [count for count, nbytes in freed.items() if nbytes >= free_gb * GIB]
    if enough:
        return enough[0]
    return max(freed, key=lambda count: freed[count]) if any(nbytes > 0 for nbytes in freed.values()) else 0
