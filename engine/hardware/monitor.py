"""Memory and load over time: a thread that looks every second and tells a :class:`~engine.events.MemorySampled`.

It tells what it sees at once where memory changed noticeably, else every five seconds: all that is told is kept in
the run's events, where a week of seconds would be most of the file. Silence longer than a minute would count as a
process that was not there. Who watches over the host's memory sees every look.

Torch-free; the peak of GPU memory, which only torch knows, comes in as a function.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from engine.events import EventLog, MemorySampled
from engine.hardware.host import host_memory
from engine.hardware.scarcity import HostWatch

if TYPE_CHECKING:
    from engine.hardware.gpu import Gpu

# The driver's library is loaded by the first sample, in its thread: the screen's first frame waits for every module
# that is imported before.


TOLD_EVERY_S = 5.0
NOTICEABLE_GB = 0.1
NOTICEABLE_PART = 0.01
"""Of the host's memory, which other programs share: where that is more, only more is worth telling."""


class MemorySampler:
    """A daemon thread that looks at once and then every ``interval_s`` seconds until stopped.

    Args:
        events: where samples go: the first, the last, and those between that tell something.
        interval_s: seconds between looks.
        told_every_s: seconds after which a sample is told whatever it says.
        peak: gives the peak of GPU memory in GiB since the run began (torch's counter); None where there is none.
        uuid: the GPU to watch (its beginning suffices), or a function that tells once it is chosen; empty takes the
            first one visible to this process.
        hint: what a user can lower where the host's memory runs out, in words.
    """

    def __init__(
        self,
        events: EventLog,
        interval_s: float = 1.0,
        peak: Callable[[], float] | None = None,
        uuid: str | Callable[[], str] = "",
        hint: Callable[[], str] = lambda: "",
        told_every_s: float = TOLD_EVERY_S,
    ) -> None:
        self._events = events
        self._interval_s = interval_s
        self._told = Told(told_every_s)
        self._peak = peak
        self._uuid = uuid
        self._watch = HostWatch(hint)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def start(self) -> None:
        """Begin; a sampler runs once."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End and wait for the thread, not longer than ``timeout_s``: a stuck driver must not hold the run."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def __enter__(self) -> MemorySampler:
        """Start."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        from engine.hardware.gpu import GpuReader

        with GpuReader() as reader:
            while True:
                sample = self._sample(reader.read(load_only=True))
                if self._told.is_due(sample, time.monotonic()):
                    self._events.append(sample)
                low = self._watch.take(sample)
                if low is not None:
                    self._events.append(low)
                if self._stop.wait(self._interval_s):
                    break
        if sample is not self._told.newest:
            self._events.append(sample)

    def _sample(self, gpus: list[Gpu]) -> MemorySampled:
        used, total, process = host_memory()
        gpu = self._watched(gpus)
        if gpu is None:
            return MemorySampled(used, total, process)
        return MemorySampled(
            host_used_gb=used,
            host_total_gb=total,
            process_gb=process,
            vram_used_gb=gpu.used_gb or 0.0,
            vram_total_gb=gpu.total_gb or 0.0,
            vram_peak_gb=self._peak() if self._peak is not None else 0.0,
            gpu_percent=gpu.percent or 0.0,
            gpu_celsius=gpu.celsius or 0.0,
            gpu_watts=gpu.watts or 0.0,
        )

    def _watched(self, gpus: list[Gpu]) -> Gpu | None:
        wanted = self._uuid if isinstance(self._uuid, str) else self._uuid()
        if wanted:
            return next((gpu for gpu in gpus if gpu.uuid.startswith(wanted)), None)
        from engine.hardware.gpu import visible_gpus

        return next(iter(visible_gpus(gpus)), None)


class Told:
    """Which of a course of samples are told.

    Args:
        every_s: seconds after which one is told whatever it says.

    Attributes:
        newest: the one told last.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._at = 0.0
        self.newest: MemorySampled | None = None

    def is_due(self, sample: MemorySampled, now: float) -> bool:
        """Whether ``sample``, taken at ``now``, is to be told; then it counts as told."""
        due = self.newest is None or now - self._at >= self._every_s or _differ(self.newest, sample)
        if due:
            self.newest, self._at = sample, now
        return due


def _differ(before: MemorySampled, now: MemorySampled) -> bool:
    """Whether memory is not as it was; load goes up and down with every step and can wait."""
    host = max(NOTICEABLE_GB, NOTICEABLE_PART * now.host_total_gb)
    return (
        abs(now.host_used_gb - before.host_used_gb) >= host
        or abs(now.process_gb - before.process_gb) >= NOTICEABLE_GB
        or abs(now.vram_used_gb - before.vram_used_gb) >= NOTICEABLE_GB
        or abs(now.vram_peak_gb - before.vram_peak_gb) >= NOTICEABLE_GB
    )
