"""Tells trackers of a run, beside it: what a tracker does, and how long it takes, is nothing to the run.

One thread reads the run's events, as a screen does, and hands what trackers take to a thread of each tracker's own.
A tracker that raises, hangs or falls too far behind is told of once and left alone from then on. Which trackers there
are is :mod:`engine.training.trackers`' business.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Protocol

from engine.config import RunConfig
from engine.config_names import flat
from engine.events import EpochDone, Event, EventLog, Log, Measured, MemorySampled, RunStarted, SampleSaved, StepDone
from engine.text import safe_text

POLL_S = 0.5

PATIENCE_S = 60.0
"""How long one call into a tracker may take; beginning takes three times as long, libraries being imported there."""

LAST_S = 10.0
"""How long the end of a run waits for what is still to be told."""

MOST_WAITING = 100_000
"""Messages that wait for a tracker, at most."""


class Tracker(Protocol):
    """What is told; every text in it is safe."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Tell numbers."""

    def picture(self, name: str, path: Path, caption: str, step: int) -> None:
        """Tell a sample picture."""

    def finish(self) -> None:
        """Tell that this is all."""


@dataclass(frozen=True)
class Beginning:
    """What a tracker begins with: the run's name and folder, its settings, and the step that it goes on after."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    resumed_step: int = 0


@dataclass(frozen=True)
class Numbers:
    """Numbers of a step."""

    values: Mapping[str, float]
    step: int


@dataclass(frozen=True)
class Picture:
    """A sample picture of a step."""

    name: str
    path: Path
    caption: str
    step: int


Message = Beginning | Numbers | Picture
Make = Callable[[Beginning], Tracker]


class Tracking:
    """All trackers of one run.

    Args:
        events: of the run, its file opened: they keep their numbers from now on.
        makers: what begins each tracker, by its name for people.
        settings: the run's, plain and safe.
    """

    def __init__(
        self,
        events: EventLog,
        makers: Mapping[str, Make],
        settings: Mapping[str, Any],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._events = events
        self._settings = settings
        self._patience_s = patience_s
        self._followers = [_Follower(name, make) for name, make in makers.items()]
        self._seq = 0
        self._step = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tracking", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self, timeout_s: float = LAST_S) -> None:
        """Tell what there is left, and wait for that a while."""
        end = time.monotonic() + timeout_s
        self._ending.set()
        self._thread.join(timeout_s)
        for follower in self._followers:
            follower.end()
        for follower in self._followers:
            if not follower.dropped:
                follower.thread.join(max(0.0, end - time.monotonic()))
                if follower.thread.is_alive():
                    follower.drop("it was not done when the run was")
        self._tell()

    def _watch(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(POLL_S)
            for entry in self._events.since(self._seq):
                self._seq = entry.seq
                for message in self._messages(entry.event):
                    for follower in self._followers:
                        follower.take(message)
            for follower in self._followers:
                if follower.busy_s() > self._patience_s:
                    follower.drop(f"it has not answered for {self._patience_s:.0f} s")
            self._tell()

    def _messages(self, event: Event) -> Iterator[Message]:
        """What trackers are told of an event."""
        if isinstance(event, RunStarted):
            self._step = event.resumed_step
            yield Beginning(event.name, Path(event.folder), self._settings, event.resumed_step)
        elif isinstance(event, SampleSaved):
            strength = "" if event.strength == 1.0 else f" at {event.strength:g}"
            caption = safe_text(event.prompt, 500)
            name = f"samples/{event.index} {safe_text(event.prompt, 50).replace('/', ' ')}{strength}"
            yield Picture(name, Path(event.path), f"{caption}{strength}, epoch {event.epoch}", event.step)
        else:
            self._step = getattr(event, "step", self._step)
            values = {name: value for name, value in numbers_of(event).items() if math.isfinite(value)}
            if values:
                yield Numbers(values, self._step)

    def _tell(self) -> None:
        for follower in self._followers:
            if (reason := follower.news()) is not None:
                text = f"{follower.name} is told nothing more of this run: {reason}"
                self._events.append(Log("warning", safe_text(text, 500)))


def numbers_of(event: Event) -> dict[str, float]:
    """The numbers that trackers take from an event; empty for one that has none."""
    if isinstance(event, StepDone):
        return {
            "train/loss": event.loss,
            "train/lr": event.lr,
            "train/grad_norm": event.grad_norm,
            "train/step_s": event.step_s,
            "train/epoch": float(event.epoch),
        }
    if isinstance(event, EpochDone):
        return {"train/epoch_loss": event.loss}
    if isinstance(event, Measured):
        losses = {"measured/held_out": event.held_out, "measured/train": event.train}
        values = {name: fmean(found) for name, found in losses.items() if found}
        values |= {} if event.drift is None else {"measured/drift": event.drift}
        return values | {"measured/update": math.hypot(*(size for _, size in event.update))}
    if isinstance(event, MemorySampled):
        values = {"memory/process_gb": event.process_gb, "memory/host_gb": event.host_used_gb}
        if event.vram_total_gb:
            values |= {"memory/vram_gb": event.vram_used_gb, "memory/vram_peak_gb": event.vram_peak_gb}
        return values
    return {}


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The run's settings as trackers show them, by dotted name: of paths the last part, of texts no secret."""
    return {safe_text(name, 200): _told(value) for name, value in flat(config.model_dump()).items()}


def _told(value: Any) -> Any:
    if isinstance(value, Path):
        return safe_text(value.name, 200)
    if isinstance(value, list | tuple):
        return safe_text(", ".join(map(str, value)), 500)
    return safe_text(value, 500) if isinstance(value, str) else value


class _Follower:
    """One tracker in a thread of its own, which is left behind where it hangs."""

    def __init__(self, name: str, make: Make) -> None:
        self.name = name
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._make = make
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._tracker: Tracker | None = None
        self._since = 0.0
        self._reason: str | None = None
        self._told = False
        self.thread.start()

    def take(self, message: Message) -> None:
        """Have it told; dropped where too much waits already."""
        if self._reason is None:
            if self._waiting.qsize() >= MOST_WAITING:
                self.drop("it is too slow")
            else:
                self._waiting.put(message)

    def end(self) -> None:
        """Nothing more will be told."""
        self._waiting.put(None)

    def busy_s(self) -> float:
        """How long the call that is under way has taken."""
        since = self._since
        return time.monotonic() - since if since else 0.0

    def drop(self, reason: str) -> None:
        """Tell it nothing more; the first reason counts."""
        self._reason = self._reason if self._reason is not None else reason

    @property
    def dropped(self) -> bool:
        """Whether it is left alone."""
        return self._reason is not None

    def news(self) -> str | None:
        """Why it was dropped, once."""
        if self._reason is None or self._told:
            return None
        self._told = True
        return self._reason

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None and self._reason is None:
            self._call(partial(self._tell, message), 3.0 if isinstance(message, Beginning) else 1.0)
        if self._tracker is not None and self._reason is None:
            self._call(self._tracker.finish)

    def _call(self, work: Callable[[], None], times: float = 1.0) -> None:
        # A call that may take longer counts as if it had begun later.
        self._since = time.monotonic() + (times - 1.0) * PATIENCE_S
        with _Kept() as kept:
            work()
        self._since = 0.0
        if kept.error is not None:
            self.drop(f"{type(kept.error).__name__}: {kept.error}")

    def _tell(self, message: Message) -> None:
        if isinstance(message, Beginning):
            if self._tracker is None:
                self._tracker = self._make(message)
        elif self._tracker is None:
            return  # said before the run had an outline
        elif isinstance(message, Numbers):
            self._tracker.log(message.values, message.step)
        else:
            self._tracker.picture(message.name, message.path, message.caption, message.step)


class _Kept:
    """A context that keeps what goes wrong in it: a tracker's library may raise anything."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> _Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None
