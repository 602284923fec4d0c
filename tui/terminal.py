"""The terminal as the screen's own: descriptors kept apart from everything else that writes.

CUDA, NCCL, bitsandbytes and friends write to descriptors 1 and 2 from C, which would tear the screen. While the
screen is up, these two point at the run's log file; Textual's driver gets an output of its own on the real terminal.
That output never raises and never blocks for long: a terminal that is gone or is not read loses frames, and gets a
whole new one when it is back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

STALL_S = 1.0
"""Longest wait for a terminal that takes no bytes, before frames are dropped."""

CANCEL = "\x18"
"""Ends an escape sequence that was cut off in the middle."""

RESET = "\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l\x1b[0m"
"""Undoes every mode the driver sets; for when it could not do so itself."""


class TerminalOutput:
    """A text file on a terminal: UTF-8, never raising, dropping what a stalled terminal does not take.

    Used by the driver's writer thread alone.
    """

    def __init__(self, fd: int, stall_s: float = STALL_S) -> None:
        self._fd = fd
        self._stall_s = stall_s
        self._pending: list[str] = []
        self.lost = False
        self.stalled = False
        self.on_recovered: Callable[[], None] | None = None
        """Called, in the writer thread, when a stalled terminal takes bytes again."""

    def fileno(self) -> int:
        """The descriptor written to."""
        return self._fd

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Keep ``text`` for the next flush."""
        if not self.lost:
            self._pending.append(text)
        return len(text)

    def flush(self) -> None:
        """Send what is kept, or drop it when the terminal takes nothing."""
        data = "".join(self._pending).encode("utf-8", "replace")
        self._pending.clear()
        if self.lost or not data:
            return
        if self.stalled:
            if not self._writable(0.0):
                return
            self.stalled = False
            data = CANCEL.encode() + data
            if self.on_recovered is not None:
                self.on_recovered()
        self._send(memoryview(data))

    def _send(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                if not self._writable(self._stall_s):
                    self.stalled = True
                    return
            except OSError as err:
                if err.errno != errno.EINTR:
                    self.lost = True
                    return

    def _writable(self, timeout_s: float) -> bool:
        try:
            return bool(select.select([], [self._fd], [], timeout_s)[1])
        except OSError:
            self.lost = True
            return False


class Terminal:
    """The real terminal while descriptors 1 and 2 point elsewhere."""

    def __init__(self, output_fd: int, input_fd: int) -> None:
        self.output_fd = output_fd
        self.input_fd = input_fd
        self.output = TerminalOutput(output_fd)
        self._before = termios.tcgetattr(input_fd) if os.isatty(input_fd) else None

    def reset(self) -> None:
        """Undo every mode of the screen, for when the driver cannot."""
        self.output.write(RESET)
        self.output.flush()
        self.restore_input()

    def restore_input(self) -> None:
        """Give the input the settings it had."""
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.input_fd, termios.TCSANOW, self._before)

    def send_noise_to(self, path: Path) -> None:
        """Point descriptors 1 and 2 at the end of ``path``; where it cannot be opened they stay as they are."""
        with contextlib.suppress(OSError):
            _point_at(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))

    def size(self) -> tuple[int, int]:
        """Columns and rows; 80 x 24 where the terminal does not say."""
        try:
            columns, rows = os.get_terminal_size(self.output_fd)
        except OSError:
            return 80, 24
        return columns or 80, rows or 24


def _point_at(fd: int) -> None:
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _open_terminal() -> int:
    """A descriptor of our own for the terminal on standard output.

    Opening it by name gives a separate file description, so that not blocking on it does not change the shell's;
    where that is forbidden (after su) a duplicate serves, which may block.
    """
    with contextlib.suppress(OSError):
        return os.open(os.ttyname(1), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(1)


@contextlib.contextmanager
def own_terminal() -> Iterator[Terminal]:
    """Take the terminal on descriptors 0 and 1 for the screen; give everything back at the end, whatever happened."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = (os.dup(1), os.dup(2))
    terminal = Terminal(_open_terminal(), 0)
    _point_at(os.open(os.devnull, os.O_WRONLY))
    clean = False
    try:
        yield terminal
        clean = True
    finally:
        if clean:
            terminal.restore_input()
        else:
            terminal.reset()
        for number, fd in zip((1, 2), kept, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        os.close(terminal.output_fd)


def driver_on(terminal: Terminal) -> type[LinuxDriver]:
    """A driver class that reads and writes ``terminal`` instead of the process's standard files."""

    class KilnDriver(LinuxDriver):
        """Textual's Linux driver on a terminal of its own."""

        def __init__(self, app: App[Any], **options: Any) -> None:
            super().__init__(app, **options)
            self._file = terminal.output  # type: ignore[assignment]
            self.fileno = terminal.input_fd
            terminal.output.on_recovered = self._ask_repaint

        def _ask_repaint(self) -> None:
            self._app.call_later(self._app.refresh, layout=True)

        def _get_terminal_size(self) -> tuple[int, int]:
            return terminal.size()

    return KilnDriver
