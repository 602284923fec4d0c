"""A copier that tells what it copies and how long computing waits for it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.memory.copier import Copier, Mark
from engine.memory.meter import Traffic


class MeteredCopier:
    """Another copier's copies, counted.

    Args:
        inner: copies.
        traffic: is told.
    """

    def __init__(self, inner: Copier, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    @property
    def loaded_bytes(self) -> int:
        """Bytes copied from host to GPU so far."""
        return self._inner.loaded_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes copied from GPU to host so far."""
        return self._inner.stored_bytes

    def mark(self) -> Mark:
        """A new mark."""
        return self._inner.mark()

    def record(self, mark: Mark) -> None:
        """Set a mark behind everything that computes so far."""
        self._inner.record(mark)

    def wait(self, mark: Mark) -> None:
        """Let computing wait for a mark; the time is told as a stall."""
        with self._traffic.wait():
            self._inner.wait(mark)

    def load(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy from host to GPU."""
        self._traffic.moved(target.nbytes)
        self._inner.load(target, source, after, done)

    def store(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy from GPU to host."""
        self._traffic.moved(target.nbytes)
        self._inner.store(target, source, after, done)

    def join(self) -> None:
        """Let computing wait for every copy asked for so far."""
        self._inner.join()

    def settle(self) -> None:
        """Wait, on the host, for everything."""
        self._inner.settle()
