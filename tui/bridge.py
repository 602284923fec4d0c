"""From the engine's ring to the screen: poll, fold, and say what changed. Nothing of the engine ever waits here.

A gap in the sequence numbers (the ring overran, or a resumed run goes on in an older file) is closed by replaying
the run's JSON lines on a thread of its own; until that is done the old view stays on the screen.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from engine.commands import Command
from engine.events import (
    CheckpointSaved,
    Entry,
    EpochDone,
    EventLog,
    Log,
    MemorySampled,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
    StopPlanned,
    replay,
)
from engine.files import RunFolder
from tui.view import RunView, fold

_ALL = frozenset({"state", "step", "epoch", "saved", "samples", "memory", "stage", "log"})
_TOPICS: dict[type[object], frozenset[str]] = {
    StepDone: frozenset({"step", "stage"}),
    EpochDone: frozenset({"epoch", "log"}),
    CheckpointSaved: frozenset({"saved", "log"}),
    SampleSaved: frozenset({"samples", "log"}),
    MemorySampled: frozenset({"memory"}),
    Progress: frozenset({"stage"}),
    Log: frozenset({"log"}),
    StopPlanned: frozenset({"state", "log"}),
    StateChanged: frozenset({"state", "stage", "log"}),
    RunStarted: _ALL,
    RunFailed: _ALL,
    RunDone: _ALL,
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


def view_of(path: Path) -> RunView:
    """The view of an event file: of a run that is over, or to close a gap.

    Raises:
        OSError: the file cannot be read.
    """
    view = RunView()
    for entry in replay(path):
        fold(view, entry)
    return view


class Bridge:
    """Holds the one view of a run and keeps it up to date."""

    def __init__(self, run: RunLike) -> None:
        self.view = RunView()
        self.run = run
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._replay: Future[RunView] | None = None

    def poll(self) -> frozenset[str]:
        """Fold what is new; returns the topics that changed, none while a gap is being closed."""
        if self._replay is not None:
            if not self._replay.done():
                return frozenset()
            self._take_replay(self._replay)
            return self._fold(self.run.events.since(self.view.seq)) | _ALL
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
        else:  # the file is gone: the ring's part is all there is
            self.view = RunView(seq=self.run.events.since(0)[0].seq - 1)

    def _fold(self, entries: list[Entry]) -> frozenset[str]:
        topics: set[str] = set()
        for entry in entries:
            fold(self.view, entry)
            topics |= _TOPICS.get(type(entry.event), frozenset())
        return frozenset(topics)
