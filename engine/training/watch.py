"""The watch over a live run: tells when steps take longer than they did, from which cause, and which value to try.

It reads the run's own events, as a screen does, so that a recorded run gives the same alarms. Torch-free.

What the causes look like, the first that fits being told:

=======  ===========================================================================================================
spill    the card is full (or torch holds more than it has) and steps take half as long again or more: under Windows
         and WSL the driver then moves parts of GPU memory to the host, where other systems say out of memory
data     most of the added time lies in reading the cache
copies   most of it is waiting for weights or activations that travel between host and card
heat     the card works at full load with less power than before, and is hot
power    the same, but cool: a limit on its power or clocks was lowered
unknown  none of these: another program may be computing on the card
=======  ===========================================================================================================
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from engine.config import RunConfig
from engine.events import Entry, EventLog, MemorySampled, RunStarted, Slowed, StateChanged, StepDone, SteppedDown
from engine.training.drift import WINDOW, Change, Drift
from engine.training.next_value import to_free, to_use

SAMPLES = 6
"""Newest samples of the sensors that are looked at; one comes every five seconds, more where memory changes."""

FULL_GB, FULL_PART = 0.5, 0.02
"""A card with less than this free, in GiB or as a part of all, is full."""

SPILLED = 1.5
"""Least factor that is taken for a spill: what lies in host memory is read 10 to 50 times slower."""

HOT_C, HOTTEST_C = 80.0, 87.0
"""Degrees at which cards begin to lower their clocks; at the second all do."""

LESS_POWER, BUSY_PERCENT = 0.9, 80.0
ELSEWHERE = frozenset({"sampling", "measuring", "caching"})
"""Stages whose rungs change nothing for steps."""

SHARE = 0.5
"""Part of the added time that must lie in one place to be told as the cause."""


@dataclass(frozen=True)
class _Cause:
    """Its name, its words, and values to try."""

    name: str
    words: str
    changes: tuple[str, ...] = ()


class Watch:
    """Follows one run's events.

    Args:
        config: gives the run's settings as they are now, for the values to try.
        sizes: bytes of each block of the base.
        spills: whether the driver moves GPU memory to the host when it is full; None asks the system.
    """

    def __init__(
        self, config: Callable[[], RunConfig], sizes: Sequence[int] = (), spills: bool | None = None
    ) -> None:
        self._config = config
        self._sizes = tuple(sizes)
        self._spills = can_spill() if spills is None else spills
        self._seq = 0
        self._begin()

    def _begin(self) -> None:
        self._drift = Drift()
        self._before: list[StepDone] = []
        self._steps: deque[StepDone] = deque(maxlen=WINDOW)
        self._cool: list[MemorySampled] = []
        self._sensed: deque[MemorySampled] = deque(maxlen=SAMPLES)

    def look(self, events: EventLog) -> None:
        """Take what was told since the last look, and tell what is found in it."""
        for entry in events.since(self._seq):
            self._seq = entry.seq
            found = self.take(entry)
            if found is not None:
                events.append(found)

    def take(self, entry: Entry) -> Slowed | None:
        """What there is to tell once ``entry`` is known."""
        event = entry.event
        if isinstance(event, StepDone):
            return self._step(event)
        if isinstance(event, MemorySampled):
            self._sensed.append(event)
            if self._before and not self._drift.ready:
                self._cool = [*self._cool, event][-8 * SAMPLES :]
        elif isinstance(event, StateChanged):
            self._drift.interrupted()
        elif isinstance(event, RunStarted) or (isinstance(event, SteppedDown) and event.stage not in ELSEWHERE):
            self._begin()  # steps do other work from here on: what is normal is learned anew
        return None

    def _step(self, step: StepDone) -> Slowed | None:
        if not self._drift.ready:
            self._before = [*self._before, step][-4 * WINDOW :]
        self._steps.append(step)
        change = self._drift.add(step.tokens, step.step_s)
        if change is None:
            return None
        if change.factor == 1.0:
            return Slowed(step.step, 1.0, "over", "Steps are as quick as they were")
        return self._told(change, step)

    def _told(self, change: Change, step: StepDone) -> Slowed:
        cause = self._cause(change.factor)
        since = max(1, step.step - change.since + 1)
        now = median(each.step_s for each in self._steps)
        text = f"Steps take {change.factor:.1f} times as long as they did, {_time(now)} since about step {since}"
        return Slowed(since, round(change.factor, 3), cause.name, f"{text}: {cause.words}", cause.changes)

    def _cause(self, factor: float) -> _Cause:
        now = self._sensed[-1] if self._sensed else None
        if now is not None and factor >= SPILLED and self._is_full(now):
            return self._spill(now)
        place = self._where(factor)
        if place == "data":
            return _Cause("data", "reading the cache takes the time. Is its disk busy, or on a network?")
        if place == "copies":
            return self._copies(now)
        return self._slow_card() or _Cause("unknown", _unknown(now))

    def _is_full(self, now: MemorySampled) -> bool:
        total = now.vram_total_gb
        if not total:
            return False
        # Torch holding more than there is needs no other sign, on any system.
        full = now.vram_used_gb >= total - max(FULL_GB, FULL_PART * total)
        return now.vram_peak_gb > total or (self._spills and full)

    def _spill(self, now: MemorySampled) -> _Cause:
        over = max(now.vram_peak_gb, now.vram_used_gb) - now.vram_total_gb
        free = round(max(over, 0.0) + 1.0, 1)
        changes = to_free(self._config(), self._sizes, free)
        held = f"{now.vram_used_gb:.1f} of {now.vram_total_gb:.1f} GiB"
        words = f"the card is full ({held}), so the driver keeps a part of its memory on the host"
        if not changes:
            return _Cause("spill", f"{words}. Close what else uses the card, or train smaller pictures")
        return _Cause("spill", f"{words}. {' and '.join(changes)} would free about {free:g} GiB", changes)

    def _copies(self, now: MemorySampled | None) -> _Cause:
        words = "computing waits for what travels between host and card"
        idle = now.vram_total_gb - now.vram_used_gb if now is not None else 0.0
        changes = to_use(self._config(), self._sizes, idle)
        if changes:
            return _Cause(
                "copies", f"{words}. {idle:.1f} GiB of the card are free: try {' and '.join(changes)}", changes
            )
        return _Cause("copies", f"{words}. Does another program use the link, or swap host memory?")

    def _where(self, factor: float) -> str:
        """ "data" or "copies", where most of the time that a token takes more now is spent."""
        more = {"data": 0.0, "copies": 0.0}
        recent = list(self._steps)[-WINDOW // 2 :]
        whole = _per_token([(step, step.step_s) for step in self._before]) * (factor - 1)
        for name, part in (("data", "data_s"), ("copies", "stall_s")):
            before = _per_token([(step, getattr(step, part)) for step in self._before])
            more[name] = _per_token([(step, getattr(step, part)) for step in recent]) - before
        place = max(more, key=lambda name: more[name])
        return place if whole > 0 and more[place] > SHARE * whole else ""

    def _slow_card(self) -> _Cause | None:
        """The card itself is slower, by its sensors."""
        if len(self._sensed) < 2:
            return None
        recent = list(self._sensed)[-SAMPLES // 2 :]
        hot = median(sample.gpu_celsius for sample in recent)
        before = median(sample.gpu_watts for sample in self._cool) if self._cool else 0.0
        watts = median(sample.gpu_watts for sample in recent)
        busy = fmean(sample.gpu_percent for sample in recent) >= BUSY_PERCENT
        less = busy and 0 < watts < LESS_POWER * before
        if hot >= HOTTEST_C or (less and hot >= HOT_C):
            drawn = f" and draws {watts:.0f} W instead of {before:.0f}" if less else ""
            return _Cause("heat", f"the card is at {hot:.0f} °C{drawn}, so it lowers its clocks. Give it air")
        if less:
            words = f"the card draws {watts:.0f} W instead of {before:.0f} at {hot:.0f} °C: a limit was lowered"
            return _Cause(
                "power", f"{words} (nvidia-smi -q -d PERFORMANCE says which; a laptop may be on its battery)"
            )
        return None


def can_spill(release: str = "", system: str = "") -> bool:
    """Whether the driver here moves GPU memory to the host when it is full: that of Windows, also below WSL."""
    return (system or platform.system()) == "Windows" or "microsoft" in (release or platform.release()).lower()


def _unknown(now: MemorySampled | None) -> str:
    if now is None or not now.vram_total_gb:
        return "other programs may be using this machine"
    if now.gpu_percent >= BUSY_PERCENT:
        return "neither memory, heat nor copies tell why. Another program may be computing on the card"
    return "the card waits for the processor. Other programs may keep it busy"


def _per_token(times: Sequence[tuple[StepDone, float]]) -> float:
    return median(seconds / max(step.tokens, 1) for step, seconds in times) if times else 0.0


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
