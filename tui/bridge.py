"""From the engine's ring to the screen: poll, fold, and say what changed. Nothing of the engine ever waits here.

A gap in the sequence numbers (the ring overran, or a resumed run goes on in an older file) is closed by replaying
the run's JSON lines on a thread of its own; until that is done the old view stays on the screen.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from engine.commands import Command
from engine.events import (
    Advised,
    CaptionsTaken,
    Changed,
    CheckpointRemoved,
    CheckpointSaved,
    DiskTight,
    Entry,
    EpochDone,
    EventLog,
    Foreseen,
    HostMemoryLow,
    Log,
    LossSpiked,
    Measured,
    MemoryHeld,
    MemorySampled,
    NearCopy,
    Probed,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    Scored,
    Slowed,
    StateChanged,
    StepBroken,
    StepDone,
    SteppedDown,
    StopPlanned,
    replay,
)
from engine.files import RunFolder
from tui.elsewhere import Watch, held
from tui.view import RunView, fold

LAST_WORDS_S = 0.3
"""A run lets go of its lock a moment before it tells how it ended."""

ALL_TOPICS = frozenset(
    {"state", "step", "epoch", "saved", "samples", "memory", "stage", "log", "captions", "measured"}
)
_TOPICS: dict[type[object], frozenset[str]] = {
    StepDone: frozenset({"step", "stage"}),
    EpochDone: frozenset({"epoch", "log"}),
    CheckpointSaved: frozenset({"saved", "log"}),
    CheckpointRemoved: frozenset({"saved", "log"}),
    SampleSaved: frozenset({"samples", "log"}),
    Scored: frozenset({"samples"}),
    NearCopy: frozenset({"samples", "log"}),
    MemoryHeld: frozenset({"memory"}),
    MemorySampled: frozenset({"memory"}),
    Probed: frozenset({"memory"}),
    Foreseen: frozenset({"memory", "log"}),
    Slowed: frozenset({"log", "step"}),
    SteppedDown: frozenset({"memory", "log"}),
    DiskTight: frozenset({"log", "state"}),
    StepBroken: frozenset({"step", "epoch", "saved", "samples", "log"}),
    LossSpiked: frozenset({"log"}),
    HostMemoryLow: frozenset({"log"}),
    Progress: frozenset({"stage"}),
    CaptionsTaken: frozenset({"captions", "log"}),
    Measured: frozenset({"measured"}),
    Advised: frozenset({"measured", "log"}),
    Log: frozenset({"log"}),
    Changed: frozenset({"log"}),
    StopPlanned: frozenset({"state", "log"}),
    StateChanged: frozenset({"state", "stage", "log"}),
    RunStarted: ALL_TOPICS,
    RunFailed: ALL_TOPICS,
    RunDone: ALL_TOPICS,
}


class RunLike(Protocol):
    """What the screen needs of a run; :class:`engine.run.Run` and the tests' fake run have it."""

    @property
    def events(self) -> EventLog:
        """The ring of events; exists before the run starts."""

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder once made."""

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""

    def start(self) -> None:
        """Start the engine's thread."""

    def submit(self, command: Command) -> None:
        """Queue a command; never blocks."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True when it came."""


class PastRun:
    """A run known by its folder only: it is over, or another process trains it. It takes no commands.

    Attributes:
        holder: the process that trains it, as last seen; empty when it is over.
    """

    alive = False

    def __init__(self, folder: Path) -> None:
        self.events = EventLog()
        self.folder = RunFolder(folder)
        self.holder = ""

    def start(self) -> None:
        """A run that is over does not start; :func:`engine.run.open_run` takes one up again."""

    def submit(self, command: Command) -> None:
        """Nobody here obeys.

        Raises:
            RunError: another process trains it, named.
        """
        if self.holder:
            raise held(self.holder)

    def join(self, timeout_s: float | None = None) -> bool:
        """Here it has ended."""
        return True


def view_of(path: Path) -> RunView:
    """The view of an event file: of a run that is over, or to close a gap.

    Raises:
        OSError: the file cannot be read.
    """
    view = RunView()
    for entry in replay(path):
        fold(view, entry)
    return view


def _folded(watch: Watch) -> RunView:
    view = RunView()
    for entry in watch.look():
        fold(view, entry)
    if view.live and not watch.holder:
        time.sleep(LAST_WORDS_S)
        for entry in watch.look():
            fold(view, entry)
    return view


def _news(watch: Watch) -> list[Entry]:
    entries = list(watch.look())
    if not watch.holder:
        time.sleep(LAST_WORDS_S)
        entries += watch.look()
    return entries


class Bridge:
    """Holds the one view of a run and keeps it up to date."""

    def __init__(self, run: RunLike) -> None:
        self.view = RunView()
        self.run = run
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._replay: Future[RunView] | None = None
        self._news: Future[list[Entry]] | None = None
        self._watch: Watch | None = None
        if isinstance(run, PastRun):
            self._watch = Watch(run.folder)
            self._replay = self._pool.submit(_folded, self._watch)

    def poll(self) -> frozenset[str]:
        """Fold what is new; returns the topics that changed, none while a gap is being closed."""
        if self._replay is not None:
            if not self._replay.done():
                return frozenset()
            self._take_replay(self._replay)
            return self._fold(self.run.events.since(self.view.seq)) | ALL_TOPICS
        if self._watch is not None:
            return self._follow(self._watch)
        entries = self.run.events.since(self.view.seq)
        folder = self.run.folder
        if entries and entries[0].seq != self.view.seq + 1 and folder is not None and folder.events.exists():
            self._replay = self._pool.submit(view_of, folder.events)
            return frozenset()
        return self._fold(entries)

    def finish(self) -> None:
        """Fold all that is left, waiting for a replay: for after the end."""
        while self.poll() or self._replay is not None:
            if self._replay is not None:
                wait((self._replay,))

    def close(self) -> None:
        """Let go of the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take_replay(self, replayed: Future[RunView]) -> None:
        self._replay = None
        if replayed.exception() is None:
            self.view = replayed.result()
            self._take_holder()
        else:  # the file is gone: the ring's part is all there is
            kept = self.run.events.since(0)
            self.view = RunView(seq=kept[0].seq - 1 if kept else 0)

    def _follow(self, watch: Watch) -> frozenset[str]:
        """Take what a run that another process trains has told; what is new is read in the thread."""
        if self._news is None:
            if self.view.live:
                self._news = self._pool.submit(_news, watch)
            return frozenset()
        if not self._news.done():
            return frozenset()
        news, self._news = self._news, None
        return self._fold(news.result()) | self._take_holder()

    def _take_holder(self) -> frozenset[str]:
        """Who trains the run now; one that ended without saying so (a crash, a power cut) was interrupted."""
        run, watch = self.run, self._watch
        if watch is None or not isinstance(run, PastRun):
            return frozenset()
        before, run.holder = run.holder, watch.holder if self.view.live else ""
        if self.view.live and not run.holder:
            self.view.state = "interrupted"
        return ALL_TOPICS if run.holder != before else frozenset()

    def _fold(self, entries: list[Entry]) -> frozenset[str]:
        topics: set[str] = set()
        for entry in entries:
            fold(self.view, entry)
            topics |= _TOPICS.get(type(entry.event), frozenset())
        return frozenset(topics)
