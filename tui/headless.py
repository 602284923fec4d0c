"""A run without a screen: a progress bar on stderr, or event lines on stdout, and signals that save and stop.

A lost terminal (SIGHUP) stops nothing: the run goes on, what it prints goes to its log, `kiln attach` shows it.

Takes a run that was not started, gives an exit code. The run is watched the way the screen watches it: events are
polled and folded into a :class:`tui.view.RunView`; nothing here is ever waited for by the engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from engine.commands import StopNow
from engine.events import Entry, StateChanged, replay
from engine.run import helper_rank
from tui.bridge import RunLike
from tui.error_text import error_text
from tui.exit_codes import exit_code
from tui.measuring import measure
from tui.progress import Progress
from tui.report import report
from tui.signals import StopSignals, exit_code_of
from tui.terminal.beside import reachable
from tui.terminal.output import writable
from tui.view import LogLine, RunView, fold

POLL_S = 0.2

LAST_MEASURE_S = 2.0
"""How long the end waits for what the run measured to be kept; most of it is the disk's."""

UNREACHABLE = (
    "`kiln attach` cannot steer this run: another lorakiln works in this folder. `kiln train --ui` trains in that one"
)

_TERMINALS = (4, 5, *range(136, 144))
"""Linux's device numbers of consoles and pseudo-terminals."""


def run_headless(run: RunLike, json_lines: bool = False) -> int:
    """Start ``run``, show it until it ends, and return the exit code.

    Args:
        run: not started yet.
        json_lines: write every event as a JSON line to stdout, and nothing else there.
    """
    progress = Progress(sys.stderr, quiet=json_lines and not sys.stderr.isatty())

    def on_signal(signum: int) -> None:
        if signals.count > 1:
            _wipe_bar()
            os._exit(exit_code_of(signum))  # asked twice: at once, whatever is lost
        run.submit(StopNow())

    def on_hangup(signum: int) -> None:
        progress.hush()
        _leave_terminal(run)

    signals = StopSignals(on_signal, (signal.SIGINT, signal.SIGTERM))
    with signals, StopSignals(on_hangup, (signal.SIGHUP,)), event_lines(json_lines) as emit:
        run.start()
        measuring = measure(run) if not helper_rank() else None
        with reachable(run) if not helper_rank() else contextlib.nullcontext(True) as shown:
            if not shown:
                progress.line(LogLine(time.time(), "warning", UNREACHABLE))
            view = _follow(run, progress, emit)
        if measuring is not None:
            measuring.join(LAST_MEASURE_S)
        progress.close()
    if view.failure is not None:
        print(error_text(view.failure), file=sys.stderr)
    elif not json_lines:
        print(report(view, run.folder.root if run.folder is not None else None, unicode=can_unicode(sys.stdout)))
    return exit_code(view.state, signals.exit_code)


def _wipe_bar() -> None:
    """Take the bar away, from a signal's handler: the stream itself may be in the middle of a write."""
    if os.isatty(2) and writable(2, 0):
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, b"\r\x1b[2K")


def _leave_terminal(run: RunLike) -> None:
    """Point what led to the terminal that is lost at the run's log, or nowhere while it has none."""
    path = run.folder.log if run.folder is not None else Path(os.devnull)
    for number in (0, 1, 2):
        if os.isatty(number) or _is_dead_terminal(number):
            with contextlib.suppress(OSError):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND | os.O_CREAT
                fd = os.open(os.devnull if number == 0 else path, flags, 0o666)
                os.dup2(fd, number)
                os.close(fd)


def _is_dead_terminal(number: int) -> bool:
    """Whether a descriptor is a terminal's, even of one that hung up and so does not say so."""
    try:
        return stat.S_ISCHR(os.fstat(number).st_mode) and os.major(os.fstat(number).st_rdev) in _TERMINALS
    except OSError:
        return False


def _follow(run: RunLike, progress: Progress, emit: Callable[[Entry], None] | None) -> RunView:
    """Show what the run tells until it ends; returns all that is known of it then.

    A resumed run goes on in the numbers of its event file, but only once it holds that file: it may fail before,
    and what it tells till then is numbered anew. So nothing is taken before it has entered a state or ended.
    """
    view: RunView | None = None
    ended = False
    while not ended:
        ended = run.join(POLL_S)
        entries = run.events.since(view.seq if view is not None else 0)
        if view is None and (ended or any(isinstance(entry.event, StateChanged) for entry in entries)):
            view = _view_before(entries[0].seq if entries else 1, run)
        if view is not None:
            _show(entries, view, progress, emit)
            progress.update(view)
    return view if view is not None else RunView()


def _view_before(seq: int, run: RunLike) -> RunView:
    """What the run's event file tells of earlier sessions, up to the entry numbered ``seq``."""
    view = RunView()
    if seq > 1 and run.folder is not None:
        for entry in replay(run.folder.events):
            if entry.seq < seq:
                fold(view, entry)
    return view


def _show(entries: list[Entry], view: RunView, progress: Progress, emit: Callable[[Entry], None] | None) -> None:
    for entry in entries:
        before = view.log[-1] if view.log else None
        fold(view, entry)
        if emit is not None:
            emit(entry)
        if view.log and view.log[-1] is not before:
            progress.line(view.log[-1])


@contextlib.contextmanager
def event_lines(wanted: bool) -> Iterator[Callable[[Entry], None] | None]:
    """Yield what writes an event line to stdout; meanwhile all else that is printed goes to stderr.

    Libraries print banners and warnings to stdout, from C code too, so the descriptor itself is turned aside.
    Without ``wanted`` nothing changes and None is yielded.
    """
    if not wanted:
        yield None
        return
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield _Writer(out)
    finally:
        os.dup2(out, 1)
        os.close(out)


class _Writer:
    """Writes event lines to a descriptor until its reader is gone; the run goes on, its events are in its folder."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._has_reader = True

    def __call__(self, entry: Entry) -> None:
        data = entry.to_json().encode() + b"\n"
        try:
            while self._has_reader and data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            self._has_reader = False


def can_unicode(stream: TextIO) -> bool:
    """Whether ``stream`` can show block and braille characters."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
