"""Progress of a run in one line of a terminal, or in plain lines every few seconds where there is none."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import TextIO

from engine.text import safe_text
from tui.units import duration, short_time
from tui.view import LogLine, RunView

PLAIN_EVERY_S = 10.0
"""Pause between plain lines: a log file of a night's run stays readable."""

_LEVELS = {"warning": "warning: ", "error": "error: "}


class Progress:
    """Shows a :class:`RunView` on a text stream.

    Args:
        stream: usually stderr.
        quiet: show nothing at all.
        clock: seconds, monotonic; for tests.
    """

    def __init__(self, stream: TextIO, quiet: bool = False, clock: object = None) -> None:
        self._stream = stream
        self._quiet = quiet
        self._is_terminal = stream.isatty()
        self._clock = clock if callable(clock) else time.monotonic
        self._unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._shown = ""
        self._last_plain = ("", self._clock())

    def update(self, view: RunView) -> None:
        """Show where the run stands."""
        if self._quiet:
            return
        if self._is_terminal:
            width = shutil.get_terminal_size((100, 24)).columns
            self._draw(status_line(view, width - 1, self._unicode))
            return
        words, since = self._last_plain
        now = self._clock()
        line = plain_line(view)
        if line and line != words and now - since >= PLAIN_EVERY_S:
            self._write(line + "\n")
            self._last_plain = (line, now)

    def line(self, entry: LogLine) -> None:
        """Print a log line above the bar."""
        if self._quiet:
            return
        text = _LEVELS.get(entry.level, "") + safe_text(entry.text)
        stamp = time.strftime("%H:%M:%S", time.localtime(entry.time))
        self._clear()
        self._write(f"{stamp} {text}\n")

    def hush(self) -> None:
        """Show nothing any more; safe in a signal handler."""
        self._quiet = True
        self._shown = ""

    def close(self) -> None:
        """Take the bar away."""
        self._clear()
        self._flush()

    def _draw(self, text: str) -> None:
        if text != self._shown:
            self._write(f"\r\x1b[2K{text}")
            self._flush()
            self._shown = text

    def _clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[2K")
            self._shown = ""

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with self._while_read():
            self._stream.write(text.encode(encoding, "replace").decode(encoding))

    def _flush(self) -> None:
        with self._while_read():
            self._stream.flush()

    @contextlib.contextmanager
    def _while_read(self) -> Iterator[None]:
        """Without a reader (``kiln train ... 2>&1 | head``, a terminal that is gone) nothing need be shown."""
        try:
            yield
        except OSError:
            self._quiet = True
            self._shown = ""


def status_line(view: RunView, width: int, unicode: bool = True) -> str:
    """One line of at most ``width`` characters: state, bar, and the figures that fit."""
    state = f"{view.state:9}"
    if view.stage and view.stage in view.stages:
        stage = view.stages[view.stage]
        of = f" {stage.done}/{stage.total}" if stage.total else ""
        part = stage.done / stage.total if stage.total else 0.0
        return f"{state} {bar(part, 20, unicode)} {safe_text(stage.name, 60)}{of}"[:width]
    if not view.steps:
        return state.rstrip()[:width]
    line = f"{state} {bar(view.step / view.steps, 20, unicode)} {100 * view.step // view.steps:3d}%"
    for figure in _figures(view):
        if len(line) + 2 + len(figure) > width:
            break
        line += f"  {figure}"
    return line[:width]


def plain_line(view: RunView) -> str:
    """The same for a stream that is no terminal."""
    if view.stage and view.stage in view.stages:
        stage = view.stages[view.stage]
        return f"{view.state}: {safe_text(stage.name, 60)} {stage.done}/{stage.total}"
    return f"{view.state}: {'  '.join(_figures(view))}" if view.last_step is not None else ""


def _figures(view: RunView) -> list[str]:
    """Figures in the order of their worth."""
    figures = [f"step {view.step}/{view.steps}"]
    smooth = view.courses.smoothed[0].course
    if smooth:
        figures.append(f"loss {smooth[-1]:.4f}")
    if view.skipped:
        figures.append(f"{len(view.skipped)} left out")
    if view.live:
        figures.append(f"ETA {duration(view.eta_s)}")
    if view.epochs:
        figures.append(f"epoch {view.epoch}/{view.epochs}")
    if view.step_s is not None:
        figures.append(f"{short_time(view.step_s)}/step")
    return figures


def bar(part: float, width: int, unicode: bool = True) -> str:
    """A bar of ``width`` characters, filled to ``part`` (0 to 1)."""
    full = round(min(1.0, max(0.0, part)) * width)
    return ("━" * full + "╌" * (width - full)) if unicode else "[" + "#" * full + "-" * (width - full) + "]"
