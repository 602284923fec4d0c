"""Captioning as the outside sees it: a state, events out, commands in; a small sibling of :class:`engine.run.Run`.

The thread imports torch, loads the model, works and gives the GPU's memory back; importing this module does not
import torch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from engine.captioners.making import Control, Outcome, Subject, caption_pictures, free_memory
from engine.captioners.request import CaptionRequest
from engine.commands import Command, Pause, Resume, StopNow
from engine.errors import EngineError
from engine.events import EventLog, RunFailed, StateChanged
from engine.explain import explain
from engine.files import default_cache_dir, keep_code_in
from engine.text import safe_text

ENDED = ("finished", "stopped", "failed")


class CaptionJob:
    """Captions for a set of pictures, made in a thread.

    ``new`` -> ``captioning`` <-> ``paused`` -> ``finished``, ``stopped`` or ``failed``. A pause holds the model in
    memory and begins after the batch in progress; a stop ends that batch in its middle.

    Attributes:
        events: progress, remarks, states, and a failure in the words of a run's.
        outcome: what came of it, once it is over.
    """

    def __init__(self, request: CaptionRequest, subjects: Sequence[Subject]) -> None:
        self.request = request
        self.subjects = tuple(subjects)
        self.events = EventLog()
        self.state = "new"
        self.outcome = Outcome()
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._main, name="captioning", daemon=False)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True if it is over."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, command: Command) -> None:
        """Pause, go on, or stop; other commands are a run's. Never blocks, from any thread."""
        if isinstance(command, Pause):
            self._go.clear()
        elif isinstance(command, Resume):
            self._go.set()
        elif isinstance(command, StopNow):
            self._stop.set()
            self._go.set()

    def _enter(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.events.append(StateChanged(state))

    def _hold(self) -> None:
        if not self._go.is_set():
            self._enter("paused")
            self._go.wait()
            self._enter("captioning")

    def _main(self) -> None:
        try:
            self._enter("captioning")
            keep_code_in(default_cache_dir() / "code")
            control = Control(self._hold, self._stop.is_set)
            self.outcome = caption_pictures(self.request, self.subjects, self.events, control)
        except EngineError as err:
            self._fail(err.title, err.detail, err.hint)
        except Exception as err:  # the edge of the thread: everything becomes an event
            self._fail(*explain(err, None))
        else:
            self._enter("finished" if self.outcome.complete else "stopped")
        finally:
            free_memory()

    def _fail(self, title: str, detail: str, hint: str) -> None:
        parts = safe_text(title, 500), safe_text(detail, 8000, newlines=True), safe_text(hint, 2000, newlines=True)
        self.events.append(RunFailed(*parts, ""))
        self._enter("failed")
