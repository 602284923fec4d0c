"""Writing beside the training: a copy of the state in host memory, and a thread that puts it on the disk.

The copy is ordered with the GPU's other work, so it holds what stood when it was asked for, whatever the next step
does; the thread waits for it. There is memory for one copy: a second save begins when the first is on the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import DiskError, RunError
from engine.memory.pinned import HostBuffer, HostPool

POLL_S = 0.002
"""Pause between two looks whether a copy has arrived."""

ALIGNMENT = 64
"""Bytes; where a tensor may begin in the copy."""


@dataclass(frozen=True)
class Snapshot:
    """Tensors as they stood, on the host; to be read once :meth:`wait` has returned."""

    tensors: dict[str, Tensor]
    arrived: torch.cuda.Event | None = None
    given_up: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Wait until the copy is there; from any thread.

        Asks now and then instead of waiting in the driver, which may never come back once a GPU is lost.

        Raises:
            RunError: it will not arrive any more.
        """
        while self.arrived is not None and not self.given_up.is_set():
            if self.arrived.query():
                return
            self.given_up.wait(POLL_S)
        if self.arrived is not None:
            raise RunError("The GPU was lost", "before a copy of the state had left it", "")


class Snapshots:
    """Host memory that takes copies, one at a time: a new one overwrites the one before.

    Args:
        pool: where the memory comes from, pinned as far as it can; without one an ordinary pool.
    """

    def __init__(self, pool: HostPool | None = None) -> None:
        self._pool = pool
        self._buffer: HostBuffer | None = None
        self._given_up = threading.Event()

    def take(self, tensors: Mapping[str, Tensor]) -> Snapshot:
        """Begin to copy ``tensors``; on a GPU this returns before they have arrived."""
        offsets, end = {}, 0
        for name, tensor in tensors.items():
            offsets[name] = end
            end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        whole = self._room(end)
        copies = {name: _view(whole, offsets[name], tensor) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            copies[name].copy_(tensor.detach(), non_blocking=True)
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        if device is None:
            return Snapshot(copies)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(device))
        return Snapshot(copies, arrived, self._given_up)

    def give_up(self) -> None:
        """End every wait for a copy: the GPU is lost."""
        self._given_up.set()

    def _room(self, nbytes: int) -> Tensor:
        if self._buffer is None or self._buffer.data.numel() < nbytes:
            if self._pool is None:
                self._pool = HostPool(pin=torch.cuda.is_available())
            if self._buffer is not None:
                self._pool.give_back(self._buffer)
            try:
                self._buffer = self._pool.take(nbytes)
            except RunError:
                # The pool keeps a margin free for the system; saving is what the margin is for.
                self._buffer = HostBuffer(torch.empty(nbytes, dtype=torch.uint8), pinned=False)
        return self._buffer.data


def _view(whole: Tensor, offset: int, like: Tensor) -> Tensor:
    nbytes = like.numel() * like.element_size()
    return whole[offset : offset + nbytes].view(like.dtype).view(like.shape)


class Writer:
    """A thread for one piece of work at a time; work that the disk refuses is not given up but done again."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "writer")
        self._work: Callable[[], None] | None = None
        self._pending: Future[None] | None = None
        self._refused = False

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; waits for the one before, and raises what that one raised."""
        self.wait()
        self._work = work
        self._pending = self._executor.submit(work)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._pending is None or self._pending.done()

    def check(self) -> None:
        """Raise what the work raised if it has ended; waits only for work that is done again."""
        if self._refused or (self._pending is not None and self._pending.done()):
            self.wait()

    def wait(self) -> None:
        """Wait for the work's end and raise what it raised, once; work that the disk refused before is done again.

        Raises:
            DiskError: the disk refuses it. What it is to write waits for the next call.
        """
        if self._refused and self._work is not None:
            self._pending, self._refused = self._executor.submit(self._work), False
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except DiskError:
            self._refused = True
            raise
        self._work = None

    def drop(self) -> None:
        """Wait for the work's end, whatever it is, and have nothing left to do again."""
        self.close_pending()
        self._work, self._refused = None, False

    def close_pending(self) -> BaseException | None:
        """Wait for the work's end; returns what was raised and not yet told."""
        pending, self._pending = self._pending, None
        return pending.exception() if pending is not None else None

    def close(self) -> BaseException | None:
        """Wait for the work's end and let the thread go; returns what was raised and not yet told."""
        self._executor.shutdown(wait=True)
        return self.close_pending()
