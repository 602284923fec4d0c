"""Which blocks' weights stream through the GPU, and when each is fetched. Pure arithmetic, torch-free.

A :class:`Plan` says which of the N blocks wait in host memory and how many ring slots they share on the GPU. A
:class:`Ring` decides, use by use, which block to fetch next and into which slot; the streamer and
:func:`engine.memory.simulate.simulate` both obey it, so that what is tested is what runs.

A training pass uses the blocks 0..N-1 and then N-1..0, a sampling pass 0..N-1 only. A slot is given to a new block
only when the one in it is needed later than the new one (the best choice when the order is known). From this follows
that the last blocks of the forward pass stay for the backward pass, and the first ones for the next forward: a step
moves ``2 (S - slots)`` of S streamed blocks, all from the host to the GPU.

Sizes are bytes, times seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import ConfigError


class BlockSizes(Protocol):
    """What of a transformer's sizes its blocks' bytes depend on; :class:`engine.models.flux.FluxParams` has them."""

    @property
    def hidden_size(self) -> int:
        """D."""
        ...

    @property
    def num_heads(self) -> int:
        """H."""
        ...

    @property
    def mlp_hidden(self) -> int:
        """Width of the MLP's hidden layer."""
        ...

    @property
    def qkv_bias(self) -> bool:
        """Whether double blocks' qkv have a bias."""
        ...

    @property
    def depth(self) -> int:
        """Double blocks."""
        ...

    @property
    def depth_single_blocks(self) -> int:
        """Single blocks."""
        ...


ALIGNMENT = 256
"""Bytes on which every tensor of a block begins; what wide loads and the libraries of matrix products ask for."""

RING_SLOTS = 2
"""One block in use and one on its way."""


@dataclass(frozen=True)
class Plan:
    """Where every block's weights are.

    Attributes:
        sizes: bytes of each block, packed.
        streamed: the blocks that wait in host memory, ascending.
        slots: ring slots on the GPU, each as large as the largest streamed block.
    """

    sizes: tuple[int, ...]
    streamed: tuple[int, ...]
    slots: int

    @property
    def blocks(self) -> int:
        """N."""
        return len(self.sizes)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one ring slot."""
        return max((self.sizes[block] for block in self.streamed), default=0)

    @property
    def host_bytes(self) -> int:
        """Bytes of host memory that the streamed blocks take."""
        return sum(self.sizes[block] for block in self.streamed)

    @property
    def device_bytes(self) -> int:
        """Bytes of GPU memory: resident blocks and the ring."""
        return sum(self.sizes) - self.host_bytes + self.slots * self.slot_bytes

    def step_bytes(self, backward: bool = True) -> int:
        """Bytes from host to GPU of one pass among equal ones; nothing ever goes back."""
        if len(self.streamed) <= self.slots:
            return 0
        if not backward:
            return self.host_bytes
        kept = self.streamed[: self.slots] + self.streamed[-self.slots :]
        return 2 * self.host_bytes - sum(self.sizes[block] for block in kept)


def make_plan(
    sizes: Sequence[int],
    blocks_to_swap: int,
    compute_s: Sequence[float] | None = None,
    slots: int = RING_SLOTS,
    streamed: Sequence[int] | None = None,
) -> Plan:
    """Choose the blocks to stream.

    Args:
        sizes: bytes of each block.
        blocks_to_swap: how many stream, 0 to all.
        compute_s: what each block computes, in any unit; None takes them for equal, as FLUX's are: a double block
            has twice a single one's weights, but each token meets only half of them.
        slots: most ring slots; fewer blocks than that need fewer, since a ring that holds them all saves nothing.
        streamed: exactly these instead of a choice, for a set-up taken over from elsewhere.

    Raises:
        ConfigError: more blocks than there are, or fewer than none.
    """
    check_swap(blocks_to_swap, len(sizes))
    if streamed is not None:
        return _with_ring(sizes, tuple(sorted(streamed)), slots)
    candidates = [choose(sizes, blocks_to_swap, compute_s)]
    small = [block for block, size in enumerate(sizes) if size < max(sizes)]
    if blocks_to_swap <= len(small):
        # A few small blocks among small ones: their ring is small too.
        times = None if compute_s is None else [compute_s[block] for block in small]
        among = choose([sizes[block] for block in small], blocks_to_swap, times)
        candidates.append(tuple(small[place] for place in among))
    return min((_with_ring(sizes, each, slots) for each in candidates), key=lambda plan: plan.device_bytes)


def check_swap(blocks_to_swap: int, blocks: int) -> None:
    """Check that a model of so many ``blocks`` can stream so many.

    Raises:
        ConfigError: more blocks than there are, or fewer than none.
    """
    if not 0 <= blocks_to_swap <= blocks:
        raise ConfigError(
            "memory.blocks_to_swap is out of range",
            f"{blocks_to_swap} wanted, the model has {blocks} blocks",
            f"Choose 0 to {blocks}.",
        )


def _with_ring(sizes: Sequence[int], streamed: tuple[int, ...], slots: int) -> Plan:
    return Plan(tuple(sizes), streamed, max(min(slots, len(streamed) - 1), min(len(streamed), 1)))


def choose(sizes: Sequence[int], count: int, compute_s: Sequence[float] | None = None) -> tuple[int, ...]:
    """``count`` blocks, spread so that the bytes to fetch keep pace with what is computed meanwhile.

    Blocks that carry many bytes for their computing time are chosen the more rarely: each block gets the share
    ``time / bytes``, at most 1, and the k-th is taken where the shares add up to ``k + 1/2``.
    """
    times = list(compute_s) if compute_s is not None else [1.0] * len(sizes)
    rates = [time / size for time, size in zip(times, sizes, strict=True)]
    shares = _shares(rates, count)
    chosen: list[int] = []
    reached = 0.0
    for block, share in enumerate(shares):
        reached += share
        if len(chosen) < count and reached + 1e-9 >= len(chosen) + 0.5:
            chosen.append(block)
    return tuple(chosen)


def _shares(rates: Sequence[float], count: int) -> list[float]:
    """Shares of at most 1 that add up to ``count``, proportional to ``rates`` as far as the limit lets them."""
    full: set[int] = set()
    while True:
        open_rates = sum(rate for block, rate in enumerate(rates) if block not in full)
        factor = (count - len(full)) / open_rates if open_rates else 0.0
        over = {block for block, rate in enumerate(rates) if block not in full and rate * factor > 1.0}
        if not over:
            return [1.0 if block in full else rate * factor for block, rate in enumerate(rates)]
        full |= over


class Ring:
    """What is in the slots and what comes next, followed from use to use.

    The order of uses is foreseen, not told: forward, then backward or not, as the pass before did or as
    :meth:`expect` says. A pass that is broken off or uses out of order are no error; what is missing then is fetched
    on demand.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.contents: list[int | None] = [None] * plan.slots
        """The block in each slot, be it there or on its way."""
        self.held = [0] * plan.slots
        """How many uses of each slot are in progress."""
        self._block = -1
        self._backward = False
        self._lowest = 0
        self._turns = True
        self._told = False
        self._order: list[int] = []
        self._lay_out()

    def expect(self, backward: bool) -> None:
        """Say whether the pass that begins will turn round."""
        self._told = True
        if backward != self._turns:
            self._turns = backward
            self._lay_out()

    def slot_of(self, block: int) -> int | None:
        """The slot that holds a block."""
        return self.contents.index(block) if block in self.contents else None

    def arrive(self, block: int) -> bool:
        """Follow the use of a block, resident or streamed; False if nothing let this one be foreseen."""
        last, self._block = self._block, block
        if block == 0 and self._begins(last):
            if self._backward:
                # No adapter below: a backward pass ends above the first block.
                self._learn(lowest=last)
            elif last == self.plan.blocks - 1 and not self._told:
                self._learn(turns=False)
            self._backward = self._told = False
            return True
        if self._backward:
            if block < self._lowest:
                self._learn(lowest=0)
            if block in (last, last - 1):
                return True
            if (last, block) == (0, 1):  # what looked like the end of the backward pass was the next one's beginning
                self._learn(lowest=1)
        elif block == last == self.plan.blocks - 1:
            self._backward = True
            self._learn(turns=True)
            return True
        self._backward = block < last
        return block in (last, last + 1)

    def _begins(self, last: int) -> bool:
        """Whether the use of block 0 after ``last`` is a pass's first."""
        if self._backward:
            return last != 1 or self._lowest == 1
        return last != 0

    def next_load(self) -> tuple[int, int] | None:
        """The block to fetch next and the slot for it; None while every slot is needed sooner than that."""
        block = next((block for block in self._upcoming() if block not in self.contents), None)
        if block is None:
            return None
        slot = self._latest()
        if slot is None:
            return None
        there = self.contents[slot]
        return (block, slot) if there is None or self._distance(there) > self._distance(block) else None

    def slot_for(self, block: int) -> int:
        """The slot to give up for a block that is needed at once.

        Raises:
            RuntimeError: more blocks are in use at a time than there are slots.
        """
        slot = self._latest()
        if slot is None:
            raise RuntimeError(f"block {block}: all {self.plan.slots} ring slots are in use at once")
        return slot

    def clear(self) -> None:
        """Forget what is in the slots."""
        self.contents = [None] * self.plan.slots
        self.held = [0] * self.plan.slots

    def _learn(self, turns: bool | None = None, lowest: int | None = None) -> None:
        turns = self._turns if turns is None else turns
        lowest = self._lowest if lowest is None else lowest
        if (turns, lowest) != (self._turns, self._lowest):
            self._turns, self._lowest = turns, lowest
            self._lay_out()

    def _lay_out(self) -> None:
        """Places of the streamed blocks' uses in a pass, ascending: forward at i, backward at 2N - 1 - i."""
        streamed, twice = self.plan.streamed, 2 * self.plan.blocks - 1
        self._length = twice + 1 - self._lowest if self._turns else self.plan.blocks
        back = [twice - block for block in reversed(streamed) if block >= self._lowest] if self._turns else []
        self._order = [*streamed, *back]

    def _place(self) -> int:
        """The place after the use in progress."""
        at = 2 * self.plan.blocks - 1 - self._block if self._backward else self._block
        return at + 1

    def _upcoming(self) -> Iterator[int]:
        """Streamed blocks in the order of their coming uses, one pass far."""
        first = bisect_left(self._order, self._place())
        for place in (*self._order[first:], *self._order[:first]):
            yield place if place < self.plan.blocks else 2 * self.plan.blocks - 1 - place

    def _distance(self, block: int) -> int:
        """Uses until a block's turn."""
        place, length = self._place(), self._length
        forward = (block - place) % length
        if not self._turns or block < self._lowest:
            return forward
        return min(forward, (2 * self.plan.blocks - 1 - block - place) % length)

    def _latest(self) -> int | None:
        """The free slot whose block is needed last, an empty one first."""
        free = [slot for slot, holds in enumerate(self.held) if not holds]
        return max(free, key=self._lateness, default=None)

    def _lateness(self, slot: int) -> int:
        block = self.contents[slot]
        return 2 * self.plan.blocks if block is None else self._distance(block)


def spread(total: int, count: int) -> tuple[int, ...]:
    """``count`` of ``total`` places, evenly."""
    return choose([1] * total, count)


_PACKED = {"fp8": 1.0, "int8": 1.0, "nf4": 0.5}
"""Bytes of a packed weight by precision, its scales apart."""

_NF4_TABLES = (4, 4 * 16, 4 * 256)
"""Bytes of what each nf4 linear has besides: a mean and two tables of values."""


def block_bytes(params: BlockSizes, precision: str, wide: int = 2, aligned: int = ALIGNMENT) -> tuple[int, ...]:
    """Bytes of every block without its modulation, double ones first.

    Packed weights have float32 scales for each output channel (fp8, int8), or bitsandbytes' double-quantised ones
    (nf4: a byte for 64 weights and 4 bytes for 256 of those, with three small tables). Biases and norm scales stay
    wide.

    Args:
        params: the transformer's sizes.
        precision: as ``memory.precision`` has it; what is not packed is wide.
        wide: bytes of a value that the base computes in.
        aligned: where each tensor begins: in the pool, as streamed blocks do; 1 adds their bytes up alone.
    """
    dim, head, hidden = params.hidden_size, params.hidden_size // params.num_heads, params.mlp_hidden
    stream = [(3 * dim, dim, params.qkv_bias), (dim, dim, True), (hidden, dim, True), (dim, hidden, True)]
    single = [(3 * dim + hidden, dim, True), (dim, dim + hidden, True)]

    def total(linears: list[tuple[int, int, bool]]) -> int:
        pieces = [wide * head, wide * head]
        for out, inner, bias in linears:
            weights = out * inner
            pieces.append(int(weights * _PACKED.get(precision, wide)))
            pieces += [wide * out] if bias else []
            pieces += [4 * out] if precision in ("fp8", "int8") else []
            if precision == "nf4":
                scales = -(-weights // 64)
                pieces += [scales, -(-scales // 256) * 4, *_NF4_TABLES]
        return sum(-(-piece // aligned) * aligned for piece in pieces)

    return (2 * total(stream),) * params.depth + (total(single),) * params.depth_single_blocks
