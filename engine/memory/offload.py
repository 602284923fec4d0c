"""Blocks' inputs in host memory between forward and backward, copied both ways while other blocks compute.

The forward pass puts each input; the backward pass gets them in reverse order, and while it works on one the next
are on their way. Bits travel unchanged. Host buffers are static: taken in the first step, used again in every other.

On the GPU at most :data:`AHEAD` inputs wait to be copied out and as many are fetched ahead; the last ones put never
need to be fetched, since they are still there when the backward pass begins.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.memory.copier import Copier, Mark
from engine.memory.pinned import HostBuffer, HostPool

AHEAD = 2
"""Tensors on their way in either direction: one input of a double block is two (image and text)."""

_STEP = 2**20
"""Host buffers grow in whole MiB, so that buckets of nearly one size share them."""


@dataclass(eq=False)
class _Place:
    """A host buffer and the mark behind the last copy from or to it."""

    buffer: HostBuffer
    done: Mark


@dataclass(eq=False)
class Handle:
    """A tensor that was put: what it was, and where it is now."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    place: _Place | None
    here: Tensor | None = None
    """On the device: not copied out yet, or fetched ahead."""
    give_back: Callable[[], object] | None = None
    """Frees the place; runs by itself when the handle is dropped."""


@dataclass
class Offloader:
    """Puts tensors to host memory and gives them back; a last-in, first-out store.

    Attributes:
        copier: how they travel.
        pool: where host memory comes from.
    """

    copier: Copier
    pool: HostPool
    _free: list[_Place] = field(default_factory=list)
    _stack: list[weakref.ref[Handle]] = field(default_factory=list)
    _leaving: list[Handle] = field(default_factory=list)

    def put(self, x: Tensor) -> Handle:
        """Begin to copy a tensor out; its memory is free for other work soon after. It must not be changed in place.

        Raises:
            RunError: the host has no room for it.
        """
        place = self._place(x.numel() * x.element_size())
        handle = Handle(x.shape, x.dtype, x.device, place, here=x.detach().contiguous())
        assert handle.here is not None
        computed = self.copier.mark()
        self.copier.record(computed)
        source = handle.here.reshape(-1).view(torch.uint8)
        self.copier.store(place.buffer.data[: source.numel()], source, (computed, place.done), place.done)
        finalizer = weakref.finalize(handle, self._take_back, place)
        finalizer.atexit = False
        handle.give_back = finalizer
        self._stack.append(weakref.ref(handle))
        self._leaving.append(handle)
        while len(self._leaving) > AHEAD:
            self._let_leave(self._leaving.pop(0))
        return handle

    def get(self, handle: Handle) -> Tensor:
        """The tensor again, on its device; once for each handle. The ones put before it begin to come back.

        Raises:
            RuntimeError: it was given back before.
        """
        if handle.place is None or handle.give_back is None:
            raise RuntimeError("an offloaded tensor is given back once")
        self._fetch(handle)
        self._leaving = [each for each in self._leaving if each is not handle]
        x, handle.here, handle.place = handle.here, None, None
        assert x is not None
        handle.give_back()
        for ahead in self._before(handle):
            self._fetch(ahead)
        return x

    def host_bytes(self) -> int:
        """Bytes that leaving the GPU takes on the host: none, between steps there is nothing."""
        return 0

    def leave(self) -> None:
        """Hold nothing on the GPU. Called between steps; host buffers stay."""
        self.copier.settle()
        self._leaving.clear()
        self._stack.clear()

    def come_back(self) -> None:
        """Nothing to do: the next step begins anew."""

    def _let_leave(self, handle: Handle) -> None:
        """Free a tensor's memory on the GPU: computing waits for its copy, which has long been done."""
        if handle.place is not None:
            self.copier.wait(handle.place.done)
            handle.here = None

    def _take_back(self, place: _Place) -> None:
        """A place is free again, be it that its tensor was given back or that the pass was broken off.

        Waiting covers the memory on the GPU, too: a copy may still be on its way into it.
        """
        self.copier.wait(place.done)
        self._free.append(place)

    def _fetch(self, handle: Handle) -> None:
        if handle.here is not None or handle.place is None:
            return
        handle.here = torch.empty(handle.shape, dtype=handle.dtype, device=handle.device)
        allocated = self.copier.mark()
        # Memory from the allocator may still be read by earlier work.
        self.copier.record(allocated)
        target, place = handle.here.view(-1).view(torch.uint8), handle.place
        self.copier.load(target, place.buffer.data[: target.numel()], (allocated, place.done), place.done)

    def _before(self, handle: Handle) -> list[Handle]:
        """The handles put just before one, newest first; those that are gone or given back drop out."""
        while self._stack:
            last = self._stack[-1]()
            if last is not None and last is not handle and last.place is not None:
                break
            self._stack.pop()
        found = [each() for each in self._stack[: -AHEAD - 1 : -1]]
        return [each for each in found if each is not None]

    def _place(self, nbytes: int) -> _Place:
        """A free host buffer, large enough."""
        fitting = [place for place in self._free if place.buffer.data.numel() >= nbytes]
        if fitting:
            # The tightest one; among equals the last freed.
            chosen = min(reversed(fitting), key=lambda place: place.buffer.data.numel())
            self._free.remove(chosen)
            return chosen
        return _Place(self.pool.take(-(-nbytes // _STEP) * _STEP), self.copier.mark())
