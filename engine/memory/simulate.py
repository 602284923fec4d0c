"""A step with streamed blocks on paper: bytes, stalls and slots, from computing times and the link's rate.

Torch-free. The decisions are those of :class:`engine.memory.plan.Ring`, which the streamer obeys too; only time is
imagined: computing is one queue, copies are another, a copy begins when its slot is free and the copy before is done,
a block begins when its weights are there. The host is taken to run ahead of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from engine.memory.plan import Plan, Ring


@dataclass(frozen=True)
class Pass:
    """One pass over the blocks: forward, and backward down to ``lowest`` if it trains."""

    backward: bool = True
    lowest: int = 0

    def uses(self, blocks: int) -> list[int]:
        """The blocks in the order in which they are used."""
        forward = list(range(blocks))
        return forward + (forward[: self.lowest - 1 if self.lowest else None : -1] if self.backward else [])


TRAINING, SAMPLING = Pass(), Pass(backward=False)


@dataclass(frozen=True)
class Fetch:
    """One copy from host to GPU.

    Attributes:
        block: what is copied.
        slot: where to.
        after: the use (counted over all passes) whose end triggers it; -1 is before the first.
    """

    block: int
    slot: int
    after: int


@dataclass(frozen=True)
class PassCost:
    """What one pass took."""

    seconds: float
    stall_s: float
    copied_bytes: int
    copies: int


@dataclass(frozen=True)
class Simulation:
    """What came out, pass by pass; nothing goes from GPU to host, so there is no figure for it."""

    passes: tuple[PassCost, ...]
    fetches: tuple[Fetch, ...]
    peak_slots: int
    misses: int
    """Uses whose block was neither there nor on its way."""


def simulate(
    plan: Plan,
    passes: Sequence[Pass],
    forward_s: Sequence[float],
    backward_s: Sequence[float],
    link: float,
    told: bool = True,
) -> Simulation:
    """Run passes one after the other; accumulation is more passes in a step.

    Args:
        plan: where the blocks are.
        passes: what is done.
        forward_s: seconds of each block forward.
        backward_s: seconds of each block backward, its recompute included.
        link: bytes a second from host to GPU.
        told: whether the ring is told at each pass's beginning if it will turn round; else it has to learn.
    """
    clock = _Clock(plan, link)
    costs = []
    for each in passes:
        if told:
            clock.ring.expect(each.backward)
        before = (clock.now, clock.stall, clock.copied, len(clock.fetches))
        for number, block in enumerate(each.uses(plan.blocks)):
            clock.use(block, (forward_s if number < plan.blocks else backward_s)[block])
        costs.append(
            PassCost(
                clock.now - before[0],
                clock.stall - before[1],
                clock.copied - before[2],
                len(clock.fetches) - before[3],
            )
        )
    return Simulation(tuple(costs), tuple(clock.fetches), clock.peak_slots, clock.misses)


class _Clock:
    """The two queues' times."""

    def __init__(self, plan: Plan, link: float) -> None:
        self.plan, self.link = plan, link
        self.ring = Ring(plan)
        self.now = self.stall = 0.0
        self.copied = self.misses = self.peak_slots = 0
        self.fetches: list[Fetch] = []
        self._uses = 0
        self._link_free = 0.0
        self._slot_free = [0.0] * plan.slots
        self._ready = [0.0] * plan.slots
        self._prefetch()

    def use(self, block: int, seconds: float) -> None:
        self.ring.arrive(block)
        slot = None
        if block in self.plan.streamed:
            slot = self.ring.slot_of(block)
            if slot is None:
                self.misses += 1
                slot = self.ring.slot_for(block)
                self._fetch(block, slot)
            self.ring.held[slot] += 1
            self.stall += max(self._ready[slot] - self.now, 0.0)
            self.now = max(self._ready[slot], self.now)
        self.now += seconds
        self._uses += 1
        if slot is not None:
            self.ring.held[slot] -= 1
            self._slot_free[slot] = self.now
        self._prefetch()

    def _prefetch(self) -> None:
        while (load := self.ring.next_load()) is not None:
            self._fetch(*load)

    def _fetch(self, block: int, slot: int) -> None:
        size = self.plan.sizes[block]
        begin = max(self._link_free, self._slot_free[slot])
        self._ready[slot] = self._link_free = begin + size / self.link
        self.ring.contents[slot] = block
        self.copied += size
        self.fetches.append(Fetch(block, slot, self._uses - 1))
        self.peak_slots = max(self.peak_slots, sum(there is not None for there in self.ring.contents))


def bound(plan: Plan, forward_s: Sequence[float], backward_s: Sequence[float], link: float) -> float:
    """Least seconds of a training pass among equal ones, whatever the schedule, for the plan's traffic.

    At either turn the ring is full of blocks that come next: between the last streamed block's forward and its
    backward nothing can be copied, nor between the first one's backward and its next forward. On the way between the
    two, computing and copying overlap at best fully:

        T >= turns + way(forward) + way(backward),   way >= max(computed on the way, copied on the way)
    """
    computed = sum(forward_s) + sum(backward_s)
    if len(plan.streamed) <= plan.slots:
        return computed
    first, last = plan.streamed[0], plan.streamed[-1]
    turns = computed - sum(forward_s[first + 1 : last]) - sum(backward_s[first + 1 : last])
    mirrored = [plan.blocks - 1 - block for block in reversed(plan.streamed)]
    return (
        turns
        + way(plan.streamed, plan.sizes, plan.slots, forward_s, link)
        + way(mirrored, plan.sizes[::-1], plan.slots, backward_s[::-1], link)
    )


def way(streamed: Sequence[int], sizes: Sequence[int], slots: int, compute_s: Sequence[float], link: float) -> float:
    """Least seconds from the end of the first streamed block's use to the beginning of the last one's, one way.

    Between the end of the a-th use and the beginning of the k-th lie the blocks there, and the copies of the blocks
    a + slots to k: the slots hold the ones before. The longest chain of such stretches is the bound.
    """
    computed = [0.0, *accumulate(compute_s)]
    copied = [0.0, *accumulate(sizes[block] / link for block in streamed)]
    ends = [0.0]
    for k in range(1, len(streamed)):
        begin = max(
            ends[a]
            + max(computed[streamed[k]] - computed[streamed[a] + 1], copied[k + 1] - copied[min(a + slots, k + 1)])
            for a in range(k)
        )
        ends.append(begin + compute_s[streamed[k]])
    return ends[-1] - compute_s[streamed[-1]]
