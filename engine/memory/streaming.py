"""The blocks' weights, some of them on the GPU and the others fetched from host memory just before they are used.

A streamed block lies in one flat, pinned buffer on the host and comes into a slot of a small ring on the GPU, on a
stream of its own, while the blocks before it compute. Which and when is :class:`engine.memory.plan.Ring`'s to say.
Frozen weights never change, so nothing is ever copied back.

Two marks a slot keep the order: *ready* behind the copy into it, which computing waits for; *free* behind the last
computation that reads it, which the next copy waits for. The host waits for neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import RunError
from engine.memory.copier import Copier, Mark
from engine.memory.frozen import BlockWeights, block_tensors
from engine.memory.pinned import HostBlock, HostBuffer, HostPool, layout_of, over, pack_into
from engine.memory.plan import Plan, Ring

Reread = Callable[[int], BlockWeights]
"""A resident block's weights on the host, read again from where they came."""


@dataclass
class _Slot:
    """One slot: flat memory on the GPU and its two marks."""

    data: Tensor
    ready: Mark
    free: Mark


class DeviceRing:
    """The slots' memory on the compute device."""

    def __init__(self, plan: Plan, copier: Copier, device: torch.device) -> None:
        self._copier = copier
        self._slots: list[_Slot] = []
        for _ in range(plan.slots):
            data = torch.empty(plan.slot_bytes, dtype=torch.uint8, device=device)
            slot = _Slot(data, copier.mark(), copier.mark())
            # The allocator may have handed out memory that earlier work still reads.
            copier.record(slot.free)
            self._slots.append(slot)

    def load(self, number: int, block: HostBlock) -> None:
        """Begin to fetch a block into a slot, behind the last work that reads what is there."""
        slot = self._slots[number]
        size = block.layout.nbytes
        self._copier.load(slot.data[:size], block.buffer.data[:size], (slot.free,), slot.ready)

    def wait(self, number: int) -> None:
        """Let computing wait for the slot's block."""
        self._copier.wait(self._slots[number].ready)

    def let_go(self, number: int) -> None:
        """Everything launched so far is the last that reads the slot."""
        self._copier.record(self._slots[number].free)

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    def data(self, number: int) -> Tensor:
        """A slot's memory, (bytes,) uint8."""
        return self._slots[number].data


class Streamer:
    """The weights of all blocks: a :class:`~engine.memory.frozen.WeightSource`.

    Args:
        blocks: a resident block's weights on the device, a streamed one's in host memory.
        plan: which are which; :func:`engine.memory.plan.make_plan` made it.
        copier: how they travel.
        device: where the blocks compute.
        reread: gives a resident block's weights again, so that leaving the GPU copies nothing; without it they go to
            host memory meanwhile.
        say: is told once if blocks are used in an order that cannot be foreseen.
    """

    def __init__(
        self,
        blocks: Sequence[BlockWeights | HostBlock],
        plan: Plan,
        copier: Copier,
        device: torch.device | str,
        reread: Reread | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        wrong = [n for n, block in enumerate(blocks) if isinstance(block, HostBlock) != (n in plan.streamed)]
        if wrong or len(blocks) != plan.blocks:
            raise ValueError(f"{len(blocks)} blocks do not fit a plan of {plan.blocks}: see blocks {wrong}")
        large = max((block.layout.nbytes for block in blocks if isinstance(block, HostBlock)), default=0)
        if large > plan.slot_bytes:
            raise ValueError(f"a block of {large} bytes, the plan's largest streamed one has {plan.slot_bytes}")
        self.plan = plan
        self._device = torch.device(device)
        self._copier = copier
        self._reread = reread
        self._say = say
        self._streamed = {n: block for n, block in enumerate(blocks) if isinstance(block, HostBlock)}
        self._resident = {n: block for n, block in enumerate(blocks) if not isinstance(block, HostBlock)}
        self._left: dict[int, BlockWeights] = {}
        self._away = False
        self._ring = Ring(plan)
        self._memory = DeviceRing(plan, copier, self._device)
        self._views: dict[tuple[int, int], BlockWeights] = {}
        self._prefetch()

    def tensors(self) -> Iterator[Tensor]:
        """All memory on the device: resident blocks and the ring."""
        for weights in self._resident.values():
            yield from block_tensors(weights).values()
        yield from (self._memory.data(slot) for slot in range(self._memory.slots))

    def expect(self, backward: bool) -> None:
        """Say whether the pass that begins will turn round; untold, the pass before it is the model."""
        self._ring.expect(backward)

    @contextmanager
    def use(self, block: int) -> Iterator[BlockWeights]:
        """The weights of a block, on the device.

        Work launched inside may go on afterwards: the slot is given to no other block before that is done.
        """
        foreseen = self._ring.arrive(block)
        if block in self._resident:
            if not foreseen or block in (0, self.plan.blocks - 1):
                self._prefetch()  # what comes next may have changed; else only a slot let go changes anything
            yield self._resident[block]
            return
        slot = self._slot(block, foreseen)
        self._ring.held[slot] += 1
        self._memory.wait(slot)
        try:
            yield self._weights(slot, block)
        finally:
            # Also when the pass is broken off: what was launched until then still reads the slot.
            self._memory.let_go(slot)
            self._ring.held[slot] -= 1
            self._prefetch()

    def host_bytes(self) -> int:
        """Bytes that leaving the GPU takes on the host; streamed blocks are there already."""
        return 0 if self._reread else sum(map(block_bytes_on_device, self._resident.values()))

    def leave(self) -> None:
        """Give the device's memory back. What the host has, or can read again, is dropped and not copied."""
        self._drop_ring()
        for block in list(self._resident):
            weights = self._resident.pop(block)
            if self._reread is None and block not in self._left:
                self._left[block] = block_on(weights, torch.device("cpu"))

    def close(self) -> None:
        """Drop everything, for good: unlike :meth:`leave` nothing is kept for a return, so nothing is copied."""
        try:
            self._copier.settle()
        finally:
            for held in (self._views, self._resident, self._left, self._streamed):
                held.clear()
            self._memory = DeviceRing(_without_slots(self.plan), self._copier, self._device)

    def clear(self, pool: HostPool) -> None:
        """:meth:`close`, and give the streamed blocks' host memory back to ``pool``: other blocks will take it."""
        buffers = [block.buffer for block in self._streamed.values()]
        self.close()
        for buffer in buffers:
            pool.give_back(buffer)

    def come_back(self) -> None:
        """Be on the device again, with the same bits.

        Raises:
            torch.OutOfMemoryError: there is no room; :meth:`leave` then gives back what was taken.
        """
        if not self._away:
            return
        for block in range(self.plan.blocks):
            if block in self._streamed or block in self._resident:
                continue
            weights = self._left[block] if block in self._left or self._reread is None else self._reread(block)
            self._resident[block] = block_on(weights, self._device)
        self._memory = DeviceRing(self.plan, self._copier, self._device)
        self._left.clear()
        self._away = False
        self._prefetch()

    def restream(self, plan: Plan, pool: HostPool) -> None:
        """Let more blocks wait in host memory, in place: bits are moved, none is made.

        Args:
            plan: as the one before, with more streamed blocks.
            pool: host memory for those.

        Raises:
            RunError: the host has no room for them; nothing was changed.
            torch.OutOfMemoryError: no room for the ring. The blocks are moved, and :meth:`come_back` makes the ring.
        """
        more = sorted(set(plan.streamed) - self._streamed.keys())
        pool.require(sum(plan.sizes[block] for block in more), f"{len(more)} more streamed blocks")
        layouts = {block: layout_of(self._resident[block]) for block in more}
        buffers = _take_all(pool, {block: layout.nbytes for block, layout in layouts.items()})
        self._drop_ring()
        for block, layout in layouts.items():
            inside = pack_into(buffers[block].data, self._resident.pop(block), layout)
            self._streamed[block] = HostBlock(inside, buffers[block], layout)
        self.plan = plan
        self._ring = Ring(plan)
        self.come_back()

    def _drop_ring(self) -> None:
        """Give the slots' memory back, behind everything that reads or fills them."""
        self._copier.settle()
        self._away = True
        self._views.clear()
        self._ring.clear()
        self._memory = DeviceRing(_without_slots(self.plan), self._copier, self._device)

    def _slot(self, block: int, foreseen: bool) -> int:
        """The slot that holds a block; fetched now if nothing let it be foreseen."""
        slot = self._ring.slot_of(block)
        if slot is not None:
            return slot
        slot = self._ring.slot_for(block)
        self._load(block, slot)
        if not foreseen and self._say is not None:
            self._say(
                f"Streaming: block {block} was used out of order and fetched on demand; computing waited for it"
            )
            self._say = None
        return slot

    def _prefetch(self) -> None:
        while (load := self._ring.next_load()) is not None:
            self._load(*load)

    def _load(self, block: int, slot: int) -> None:
        self._ring.contents[slot] = block
        self._memory.load(slot, self._streamed[block])

    def _weights(self, slot: int, block: int) -> BlockWeights:
        """Views of a slot; made once for each pair, since the slots stay where they are."""
        found = self._views.get((slot, block))
        if found is None:
            found = self._views[slot, block] = self._streamed[block].views(self._memory.data(slot))
        return found


def _without_slots(plan: Plan) -> Plan:
    return Plan(plan.sizes, (), 0)


def _take_all(pool: HostPool, sizes: Mapping[int, int]) -> dict[int, HostBuffer]:
    """A buffer for each, or none at all."""
    taken: dict[int, HostBuffer] = {}
    try:
        for block, nbytes in sizes.items():
            taken[block] = pool.take(nbytes)
    except RunError:
        for buffer in taken.values():
            pool.give_back(buffer)
        raise
    return taken


def block_on(weights: BlockWeights, device: torch.device) -> BlockWeights:
    """The same block on another device; itself where it is there already."""
    return over(weights, {name: tensor.to(device) for name, tensor in block_tensors(weights).items()})


def block_bytes_on_device(weights: BlockWeights) -> int:
    """Bytes of a block's tensors that are not in host memory."""
    tensors = block_tensors(weights).values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.device.type != "cpu")
