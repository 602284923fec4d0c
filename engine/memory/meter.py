"""What memory holds and what a step spends on copies: always on, read late, nothing waits for it.

On a GPU the caching allocator counts on the host in the order of launches, so its figures right after a forward
pass was launched are exactly what that pass will leave standing, without waiting for the device. On a CPU there is no
such counter: tensors are added up, and the process's own size is split by them.

A step is measured at most every :data:`INTERVAL_S`; the others cost a comparison. Copies are counted where they are
submitted, waits between two events in the compute stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.events import MemoryHeld
from engine.hardware.host import host_memory

GIB = 2**30
INTERVAL_S = 2.0
"""Seconds from one measured step to the next."""

Tensors = Callable[[], Iterable[Tensor]]

_highest: dict[torch.device, int] = {}
"""Highest memory of a device before the allocator's own peak was last reset, bytes."""


def peak_bytes(device: torch.device) -> int:
    """Highest memory torch held on ``device`` since :func:`begin_peak`; 0 on a CPU. Safe from any thread."""
    if device.type != "cuda":
        return 0
    return max(_highest.get(device, 0), torch.cuda.max_memory_allocated(device))


def begin_peak(device: torch.device) -> None:
    """Measure :func:`peak_bytes` of ``device`` from here on: a run begins, an earlier one's peak is not its own."""
    _highest.pop(device, None)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def restart_peak(device: torch.device) -> None:
    """Let the allocator's own peaks begin here; :func:`peak_bytes` goes on over the whole run. Nothing on a CPU."""
    if device.type == "cuda":
        _highest[device] = peak_bytes(device)
        torch.cuda.reset_peak_memory_stats(device)


def held_bytes(tensors: Iterable[Tensor], device: torch.device, counted: set[int] | None = None) -> int:
    """Bytes of the storages behind ``tensors`` on ``device``, each once.

    Args:
        counted: addresses of storages counted already; those found are added to it.
    """
    seen = set() if counted is None else counted
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if tensor.device.type != device.type or storage.data_ptr() in seen:
            continue
        seen.add(storage.data_ptr())
        total += storage.nbytes()
    return total


@dataclass(frozen=True)
class Spent:
    """A step's copies between host and device, and the waits for them.

    Attributes:
        nbytes: submitted, both ways.
        waits: begin and end of each wait: events of the compute stream on a GPU, seconds on a CPU.
    """

    nbytes: int = 0
    waits: tuple[tuple[float | torch.cuda.Event, float | torch.cuda.Event], ...] = ()

    def moved_mb(self) -> float:
        """What was copied, in 1e6 bytes."""
        return self.nbytes / 1e6

    def stall_s(self) -> float:
        """Seconds the device waited; on a GPU only once its stream has passed the last wait."""
        total = 0.0
        for begin, end in self.waits:
            if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                total += begin.elapsed_time(end) / 1000
            else:
                total += float(end) - float(begin)  # type: ignore[arg-type]
        return total


class Traffic:
    """Counts copies between host and device while a step is launched; whoever copies tells it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._nbytes = 0
        self._waits: list[tuple[float | torch.cuda.Event, float | torch.cuda.Event]] = []

    def moved(self, nbytes: int) -> None:
        """A copy of so many bytes was submitted."""
        self._nbytes += nbytes

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Around the place where the compute stream is made to wait for a copy."""
        if self._on_gpu and torch.cuda.is_current_stream_capturing():
            yield  # a recorded step replays its waits without marks
            return
        begin = self._now()
        yield
        self._waits.append((begin, self._now()))

    def take(self) -> Spent:
        """What was counted since the last call."""
        spent = Spent(self._nbytes, tuple(self._waits))
        self._nbytes = 0
        self._waits.clear()
        return spent

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class MemoryMeter:
    """Splits what stands in memory during a step into its parts.

    Args:
        device: where the run computes.
        weights: gives the frozen base's tensors, with the buffers they stream through.
        adapters: gives the adapters' tensors, their gradients and the optimizer's states.
        interval_s: least time between two measured steps.
    """

    def __init__(
        self, device: torch.device, weights: Tensors, adapters: Tensors, interval_s: float = INTERVAL_S
    ) -> None:
        self.device = device
        self._weights = weights
        self._adapters = adapters
        self._interval_s = interval_s
        self._next = 0.0
        self._measuring = False
        self._standing = 0
        self._checkpoints = 0

    def begin(self) -> None:
        """A step begins: decide whether it is measured, and look at what stands."""
        now = time.monotonic()
        self._measuring = now >= self._next
        if not self._measuring:
            return
        self._next = now + self._interval_s
        self._checkpoints = 0
        if self.device.type == "cuda":
            restart_peak(self.device)
            self._standing = torch.cuda.memory_allocated(self.device)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around one forward pass: what it leaves standing are the checkpoints."""
        if not self._measuring:
            yield
        elif self.device.type == "cuda":
            before = torch.cuda.memory_allocated(self.device)
            yield
            kept = torch.cuda.memory_allocated(self.device) - before
            self._checkpoints = max(self._checkpoints, kept)
        else:
            with self._saved():
                yield

    def end(self) -> MemoryHeld | None:
        """The step is over; its figures if it was measured."""
        if not self._measuring:
            return None
        self._measuring = False
        counted: set[int] = set()
        weights = held_bytes(self._weights(), self.device, counted)
        adapters = held_bytes(self._adapters(), self.device, counted)
        if self.device.type == "cuda":
            own_peak = torch.cuda.max_memory_allocated(self.device)
            standing, peak = self._standing, peak_bytes(self.device)
            working = own_peak - standing - self._checkpoints
        else:
            # The process's size cannot tell a step's passing tensors from the rest: they count as other.
            _, _, process = host_memory()
            standing = peak = int(process * GIB)
            working = 0
        return MemoryHeld(
            weights_gb=_gib(weights),
            adapters_gb=_gib(adapters),
            checkpoints_gb=_gib(self._checkpoints),
            working_gb=_gib(working),
            other_gb=_gib(standing - weights - adapters),
            peak_gb=_gib(peak),
        )

    @contextmanager
    def _saved(self) -> Iterator[None]:
        """Add up the tensors that autograd keeps meanwhile, the standing ones left out."""
        counted: set[int] = set()
        held_bytes(self._weights(), self.device, counted)
        held_bytes(self._adapters(), self.device, counted)
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += held_bytes((tensor,), self.device, counted)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
        self._checkpoints = max(self._checkpoints, kept)


def _gib(nbytes: int) -> float:
    """GiB with four digits behind the point: an event is a line of a file."""
    return round(max(0, nbytes) / GIB, 4)
