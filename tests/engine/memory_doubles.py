"""Doubles for streaming and offloading: copies that come late or are counted, and small blocks in any precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.memory.copier import Copier, DirectCopier, Mark
from engine.memory.frozen import BlockWeights, Dense, SingleWeights, block_tensors
from engine.memory.pinned import HostBlock, HostPool, layout_of, pack_into

POISON = 0xA5
"""What lies where a copy has not arrived yet: as numbers, nothing that could be overlooked."""


@dataclass(eq=False)
class Copy:
    """One copy that was asked for."""

    target: Tensor
    source: Tensor
    after: list[Copy]
    queue: list[Copy]


@dataclass
class LateMark:
    """A mark of the late copier: the copy that must be done before whoever waits goes on."""

    copy: Copy | None = None


@dataclass
class LateCopier:
    """A copier on which nothing arrives before somebody waits for it, and the target is poisoned until then.

    Computing is immediate here, so a mark of the computing is always reached. Each direction has its queue; a source
    is read when its copy is waited for, so that one overwritten too early shows.
    """

    loads: list[int] = field(default_factory=list)
    stores: list[int] = field(default_factory=list)
    inward: list[Copy] = field(default_factory=list)
    outward: list[Copy] = field(default_factory=list)

    def mark(self) -> LateMark:
        return LateMark()

    def record(self, mark: LateMark) -> None:
        mark.copy = None

    def wait(self, mark: LateMark) -> None:
        if mark.copy is not None:
            _finish(mark.copy)

    def load(self, target: Tensor, source: Tensor, after: Sequence[LateMark], done: LateMark) -> None:
        self.loads.append(source.numel())
        _ask(self.inward, target, source, after, done)

    def store(self, target: Tensor, source: Tensor, after: Sequence[LateMark], done: LateMark) -> None:
        self.stores.append(source.numel())
        _ask(self.outward, target, source, after, done)

    def join(self) -> None:
        for queue in (self.outward, self.inward):
            while queue:
                _finish(queue[-1])

    settle = join


def _ask(queue: list[Copy], target: Tensor, source: Tensor, after: Sequence[LateMark], done: LateMark) -> None:
    pending = [mark.copy for mark in after if mark.copy is not None and mark.copy in mark.copy.queue]
    if not pending:
        target.fill_(POISON)
    done.copy = Copy(target, source, pending, queue)
    queue.append(done.copy)


def _finish(copy: Copy) -> None:
    while copy in copy.queue:
        first = copy.queue[0]
        for each in first.after:
            _finish(each)
        copy.queue.remove(first)
        first.target.copy_(first.source)


@dataclass
class RecordingCopier:
    """Stands in front of another copier and keeps count; for tests of what crosses the link."""

    inner: Copier = field(default_factory=DirectCopier)
    loads: list[int] = field(default_factory=list)
    """Bytes of each copy from host to GPU."""
    stores: list[int] = field(default_factory=list)
    """Bytes of each copy from GPU to host."""
    waits: int = 0

    @property
    def loaded_bytes(self) -> int:
        """From host to GPU so far."""
        return sum(self.loads)

    @property
    def stored_bytes(self) -> int:
        """From GPU to host so far."""
        return sum(self.stores)

    def mark(self) -> Mark:
        """As the inner one's."""
        return self.inner.mark()

    def record(self, mark: Mark) -> None:
        """As the inner one's."""
        self.inner.record(mark)

    def wait(self, mark: Mark) -> None:
        """Count, then as the inner one's."""
        self.waits += 1
        self.inner.wait(mark)

    def load(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Count, then copy."""
        self.loads.append(source.numel() * source.element_size())
        self.inner.load(target, source, after, done)

    def store(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Count, then copy."""
        self.stores.append(source.numel() * source.element_size())
        self.inner.store(target, source, after, done)

    def join(self) -> None:
        """As the inner one's."""
        self.inner.join()

    def settle(self) -> None:
        """As the inner one's."""
        self.inner.settle()


def small_block(seed: int, dim: int = 8, wide: int = 4, dtype: torch.dtype = torch.float32) -> SingleWeights:
    """A single block's weights of width ``dim`` (4 features in, as a joint of linears)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) / shape[-1] ** 0.5).to(dtype)

    return SingleWeights(
        Dense(draw(wide * dim, dim), draw(wide * dim)), Dense(draw(dim, wide * dim), draw(dim)), draw(dim), draw(dim)
    )


def host_block(pool: HostPool, weights: BlockWeights) -> HostBlock:
    """Move a block, from wherever it is, into one buffer of the pool."""
    layout = layout_of(weights)
    buffer = pool.take(layout.nbytes)
    return HostBlock(pack_into(buffer.data, weights, layout), buffer, layout)


def weight_bytes(weights: BlockWeights) -> int:
    """Bytes of all tensors of a block."""
    return sum(tensor.numel() * tensor.element_size() for tensor in block_tensors(weights).values())
