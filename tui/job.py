"""A single job of the engine without a screen: its progress shown, its signals obeyed, its exit code returned."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from engine.events import Entry, EventLog, NearCopy, SampleSaved
from engine.text import safe_text
from tui.exit_codes import FINISHED, STOPPED
from tui.headless import POLL_S, event_lines
from tui.progress import Progress
from tui.signals import StopSignals, exit_code_of
from tui.view import RunView, fold
from tui.view_samples import copy_words

Job = Callable[[EventLog, Callable[[], bool]], bool]
"""Takes where to tell and whether to stop; False when it was stopped before its end."""


def run_job(job: Job, json_lines: bool) -> int:
    """Do ``job`` in this thread while another shows its progress; returns the exit code.

    Raises:
        EngineError: what the job raised.
        BrokenPipeError: the reader of stdout is gone; the job was ended.
    """
    events = EventLog()
    asked = threading.Event()

    def on_signal(signum: int) -> None:
        if asked.is_set():
            os._exit(exit_code_of(signum))
        asked.set()

    signals = StopSignals(on_signal)
    with signals, event_lines(json_lines) as emit, _Watcher(events, emit, asked) as watcher:
        complete = job(events, asked.is_set)
    if watcher.broken is not None:
        raise watcher.broken
    if complete:
        return FINISHED
    return signals.exit_code or STOPPED


class _Watcher:
    """A thread that polls the events and shows them until the job is over.

    A reader that went away (``kiln sample ... | head``) sets ``asked`` and is kept in ``broken``.
    """

    def __init__(self, events: EventLog, emit: Callable[[Entry], None] | None, asked: threading.Event) -> None:
        self._events = events
        self._emit = emit
        self._progress = Progress(sys.stderr, quiet=emit is not None and not sys.stderr.isatty())
        self._view = RunView(state="working")
        self.broken: BrokenPipeError | None = None
        self._asked = asked
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress")

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._progress.close()

    def _watch(self) -> None:
        try:
            self._show_all()
        except BrokenPipeError as err:
            self.broken = err
            self._asked.set()

    def _show_all(self) -> None:
        over = False
        while not over:
            over = self._over.wait(POLL_S)
            for entry in self._events.since(self._view.seq):
                fold(self._view, entry)
                if self._emit is not None:
                    self._emit(entry)
                elif isinstance(entry.event, SampleSaved):
                    self._progress.close()
                    print(safe_text(entry.event.path), flush=True)
                elif isinstance(entry.event, NearCopy):
                    print(safe_text(copy_words(entry.event)), file=sys.stderr, flush=True)
            self._progress.update(self._view)
