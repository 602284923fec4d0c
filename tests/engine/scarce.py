"""A device that runs out of memory: at a chosen allocation, or where the live bytes go beyond a cap.

Tensors that operations of this thread hand out count as the device's memory, by their storages; what is mapped by
hand (host pools) and what other threads make does not. So a run on a CPU can be made to meet what a GPU's allocator
says, at any place of it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.run import Run


class Scarce(TorchDispatchMode):
    """Counts allocations and refuses some.

    Args:
        at: numbers of the allocations (from 1) that are refused, each once.
        cap: most live bytes; an allocation beyond is refused, every time.
        where: names the part of the run that works now, for :attr:`places`.

    Attributes:
        count: allocations so far.
        live, peak: bytes now and at their highest.
        refused: numbers of those refused.
        places: allocations by part of the run.
    """

    def __init__(self, at: tuple[int, ...] = (), cap: int = 0, where: Callable[[], str] = lambda: "") -> None:
        super().__init__()
        self.at = frozenset(at)
        self.cap = cap
        self.count = self.live = self.peak = 0
        self.refused: list[int] = []
        self.places: Counter[str] = Counter()
        self._where = where
        self._known: set[int] = set()

    def arm(self, after: int) -> None:
        """Refuse one allocation: number ``after`` (from 1) from here on."""
        self.at = self.at | {self.count + after}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper costs more than the operation; nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and refuse what it allocated if it is its turn."""
        found = func(*args, **(kwargs or {}))
        if _allocates(func):
            for tensor in found if isinstance(found, tuple | list) else (found,):
                if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                    self._met(tensor.untyped_storage())
        return found

    def _met(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self.count += 1
        self.places[self._where()] += 1
        if self.count in self.at or (self.cap and self.live + size > self.cap):
            self.refused.append(self.count)
            raise torch.OutOfMemoryError(f"out of memory: tried to allocate {size} bytes\nand more lines")
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@cache
def _allocates(func: Any) -> bool:
    """Whether what an operation returns is new memory: no view, and not what it was given."""
    return all(result.alias_info is None for result in func._schema.returns)


@contextmanager
def engine_under(mode: TorchDispatchMode, monkeypatch: Any) -> Iterator[None]:
    """Let the engine's thread of every run started inside work under ``mode``."""
    train = Run._train

    def trains(self: Run, folder: Any) -> Any:
        with mode:
            return train(self, folder)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_train", trains)
        yield
