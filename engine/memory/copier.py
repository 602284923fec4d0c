"""Copies between host and GPU that run beside the computing, behind one interface.

Computing runs on the device's current stream; copies to the GPU on a stream of their own, copies from it on another,
so that both directions of the link work at once. Order is kept by marks (events), never by ``record_stream``: buffers
are static and owned by who asks, so that the memory behind a copy is known at every moment.

The host decides what is copied and when, so a step that streams or offloads is never recorded as a CUDA graph
(:func:`engine.blocks.graphs.refusal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Mark = Any
"""A point in a stream's work that others can wait for; made by :meth:`Copier.mark`, set again and again."""


class Copier(Protocol):
    """Copies and the order between them and the computing."""

    @property
    def loaded_bytes(self) -> int:
        """From host to GPU so far."""
        ...

    @property
    def stored_bytes(self) -> int:
        """From GPU to host so far."""
        ...

    def mark(self) -> Mark:
        """A new mark, not set: waiting for it waits for nothing."""
        ...

    def record(self, mark: Mark) -> None:
        """Set a mark behind everything that computes so far."""
        ...

    def wait(self, mark: Mark) -> None:
        """Let computing that is launched from now on wait for a mark; the host goes on."""
        ...

    def load(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy from host to GPU behind ``after``, then set ``done``."""
        ...

    def store(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy from GPU to host behind ``after``, then set ``done``."""
        ...

    def join(self) -> None:
        """Let computing wait for every copy asked for so far; the host goes on."""
        ...

    def settle(self) -> None:
        """Wait, on the host, until every copy and every computation asked for so far is done."""
        ...


class CudaCopier:
    """Copies on two side streams of a CUDA device."""

    loaded_bytes = stored_bytes = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Above the computing: a copy occupies a copy engine, not the processors, and should start when it can.
        self._inward = torch.cuda.Stream(device, priority=-1)
        self._outward = torch.cuda.Stream(device, priority=-1)

    def mark(self) -> torch.cuda.Event:
        """An event without timing: the cheap kind."""
        return torch.cuda.Event()

    def record(self, mark: torch.cuda.Event) -> None:
        """Set on the current stream."""
        mark.record(torch.cuda.current_stream(self.device))

    def wait(self, mark: torch.cuda.Event) -> None:
        """Let the current stream wait."""
        torch.cuda.current_stream(self.device).wait_event(mark)

    def load(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """One asynchronous copy if the source is pinned; else the driver holds the host until it is done."""
        self.loaded_bytes += source.numel() * source.element_size()
        self._copy(self._inward, target, source, after, done)

    def store(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """One asynchronous copy if the target is pinned."""
        self.stored_bytes += source.numel() * source.element_size()
        self._copy(self._outward, target, source, after, done)

    def join(self) -> None:
        """Let the current stream wait for both."""
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._inward)
        current.wait_stream(self._outward)

    def settle(self) -> None:
        """Wait for both and for what computes."""
        for stream in (self._inward, self._outward, torch.cuda.current_stream(self.device)):
            stream.synchronize()

    def _copy(
        self, stream: torch.cuda.Stream, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark
    ) -> None:
        for mark in after:
            stream.wait_event(mark)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        done.record(stream)


class DirectCopier:
    """Copies at once, in order: on a CPU, where memory is one."""

    loaded_bytes = stored_bytes = 0

    def mark(self) -> None:
        """Nothing to wait for."""

    def record(self, mark: Mark) -> None:
        """Everything before is done."""

    def wait(self, mark: Mark) -> None:
        """Everything before is done."""

    def load(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy."""
        self.loaded_bytes += source.numel() * source.element_size()
        target.copy_(source)

    def store(self, target: Tensor, source: Tensor, after: Sequence[Mark], done: Mark) -> None:
        """Copy."""
        self.stored_bytes += source.numel() * source.element_size()
        target.copy_(source)

    def join(self) -> None:
        """Everything before is done."""

    def settle(self) -> None:
        """Everything before is done."""


def copier_for(device: torch.device) -> Copier:
    """The one that suits a device."""
    return CudaCopier(device) if device.type == "cuda" else DirectCopier()
