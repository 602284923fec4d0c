"""Puts a base's blocks where the plan wants them while they are loaded, and makes their source.

In: each block as the loader is about to fill it, then whole. Out: a :class:`~engine.memory.streaming.Streamer`. A
streamed block is written straight into its flat buffer in host memory and never touches the GPU; a resident one stays
where the loader made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.memory.copier import Copier, copier_for
from engine.memory.frozen import BlockWeights
from engine.memory.pinned import BlockLayout, HostBlock, HostBuffer, HostPool, layout_of, pack_into, tensor_views
from engine.memory.plan import RING_SLOTS, Plan, choose, make_plan
from engine.memory.streaming import Reread, Streamer


def plan_blocks(templates: Sequence[BlockWeights], blocks_to_swap: int, slots: int = RING_SLOTS) -> Plan:
    """The plan for blocks of these shapes and dtypes; the meta device is enough.

    Raises:
        ConfigError: more blocks to swap than there are.
    """
    return make_plan([layout_of(template).nbytes for template in templates], blocks_to_swap, slots=slots)


def plan_for_host(
    templates: Sequence[BlockWeights], blocks_to_swap: int, pool: HostPool, slots: int = RING_SLOTS
) -> tuple[Plan, str]:
    """The plan asked for, or one with as many streamed blocks as the host has room for.

    Returns:
        The plan, and in words what was left out and what that costs; empty if nothing was.

    Raises:
        ConfigError: more blocks to swap than there are.
    """
    wanted = plan = plan_blocks(templates, blocks_to_swap, slots)
    count = blocks_to_swap
    while plan.host_bytes > pool.free_bytes():
        count -= 1
        plan = plan_blocks(templates, count, slots)
    if count == blocks_to_swap:
        return plan, ""
    return plan, (
        f"The host has room for {count} of {blocks_to_swap} streamed blocks "
        f"({pool.free_bytes() / 1e9:.1f} GB free, {wanted.host_bytes / 1e9:.1f} GB wanted): "
        f"the GPU keeps {(plan.device_bytes - wanted.device_bytes) / 1e9:.1f} GB more"
    )


def stream_more(plan: Plan, blocks_to_swap: int, free_bytes: int) -> Plan:
    """A plan that streams more blocks than ``plan``, those that stream already among them.

    As many as ``blocks_to_swap``, or as ``free_bytes`` of host memory have room for; ``plan`` itself where that would
    leave no less on the GPU.
    """
    resident = [block for block in range(plan.blocks) if block not in plan.streamed]
    sizes = [plan.sizes[block] for block in resident]
    for count in range(blocks_to_swap - len(plan.streamed), 0, -1):
        chosen = [resident[place] for place in choose(sizes, count)]
        if sum(plan.sizes[block] for block in chosen) <= free_bytes:
            wider = make_plan(plan.sizes, len(plan.streamed) + count, streamed=(*plan.streamed, *chosen))
            return wider if wider.device_bytes < plan.device_bytes else plan
    return plan


class Placement:
    """Where each block goes while a base is loaded; ``room`` and ``place`` are what the loader asks.

    Raises:
        RunError: the host has no room for the streamed blocks; nothing was taken.
    """

    def __init__(self, plan: Plan, pool: HostPool, device: torch.device | str) -> None:
        if plan.streamed:
            pool.require(plan.host_bytes, f"{len(plan.streamed)} streamed blocks")
        self._plan = plan
        self._pool = pool
        self._device = torch.device(device)
        self._rooms: dict[int, tuple[HostBuffer, BlockLayout]] = {}
        self._blocks: dict[int, BlockWeights | HostBlock] = {}

    def room(self, block: int, template: BlockWeights) -> Mapping[str, Tensor] | None:
        """Host memory for a streamed block's tensors, by name; None for a resident one's."""
        if block not in self._plan.streamed:
            return None
        layout = layout_of(template)
        buffer = self._pool.take(layout.nbytes)
        self._rooms[block] = buffer, layout
        return tensor_views(buffer.data, layout)

    def place(self, block: int, weights: BlockWeights) -> BlockWeights:
        """Take a whole block; a streamed one that the loader did not write into its room is copied there."""
        if block not in self._plan.streamed:
            self._blocks[block] = weights
            return weights
        buffer, layout = self._rooms.get(block) or self._room_for(weights)
        inside = pack_into(buffer.data, weights, layout)
        self._blocks[block] = HostBlock(inside, buffer, layout)
        return inside

    def source(
        self,
        copier: Copier | None = None,
        reread: Reread | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Streamer:
        """The source of all blocks, once every one is placed; called once.

        From then on it alone holds them: a resident block that somebody else keeps (the loader's list, say) could
        not leave the GPU in a pause.
        """
        blocks = [self._blocks.pop(block) for block in range(self._plan.blocks)]
        self._rooms.clear()
        return Streamer(blocks, self._plan, copier or copier_for(self._device), self._device, reread, say)

    def _room_for(self, weights: BlockWeights) -> tuple[HostBuffer, BlockLayout]:
        layout = layout_of(weights)
        return self._pool.take(layout.nbytes), layout
