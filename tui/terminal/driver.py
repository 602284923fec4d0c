"""The terminal as the screen's own: descriptors kept apart from everything else that reads and writes.

A :class:`Terminal` is two descriptors and what is to be given back at the end. In the host they came from a client;
in the foreground they are the process's own, and its descriptors 1 and 2 point at the run's log meanwhile, because
CUDA, NCCL, bitsandbytes and friends write there from C, which would tear the screen. The driver uses no signals, so
a screen may run in any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from textual import constants, events
from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size
from textual.message import Message

from tui.terminal.host_log import log_text
from tui.terminal.modes import Settings, forget_typed, give_back, make_raw, open_terminal, settings_of
from tui.terminal.output import RESET, TerminalOutput, send_all
from tui.terminal.probe import without_answers
from tui.terminal.user_editor import UserEditor

UNDO_S = 2.0
"""How long a terminal that takes no bytes is waited for when its modes must be undone."""

_READ = 4096
_TICK_S = 0.1
"""How often a lone escape is looked at: was it the key, or the start of a sequence?"""


class Terminal:
    """A terminal taken for the screen.

    Args:
        output_fd: written to; best a descriptor that does not block.
        input_fd: read from.
        before: the input's settings to give back in the end; None leaves them to someone else.
        typed: what was typed before the screen was there.
        late_answers: the terminal did not answer the probe in time, so its answers may still come.
    """

    def __init__(
        self,
        output_fd: int,
        input_fd: int,
        before: Settings | None = None,
        typed: bytes = b"",
        late_answers: bool = False,
    ) -> None:
        self.output_fd = output_fd
        self.input_fd = input_fd
        self.output = TerminalOutput(output_fd)
        self.before = before
        self.typed = typed
        self.late_answers = late_answers
        self.on_resize: Callable[[], None] | None = None
        """The driver's, while a screen is up: called from any thread when the size may have changed."""
        self.on_lost: Callable[[], None] | None = None
        """Called, from a thread of ours, when the terminal is gone."""
        self.output.on_lost = self.hung_up
        self.modes_set = False
        """Whether the screen's modes are on, as far as was queued."""
        self.lent = False
        """Another program has it: what the screen draws is dropped."""
        self.edit: Callable[[Path], str] | None = None
        """Has the user's own editor run on it, and waits; None where none can. What went wrong comes back."""
        self._ours: Settings | None = None

    def hung_up(self) -> None:
        """The terminal is gone: tell, once."""
        told, self.on_lost = self.on_lost, None
        if told is not None:
            told()

    def resized(self) -> None:
        """The terminal may have another size."""
        if self.on_resize is not None:
            self.on_resize()

    def make_raw(self) -> None:
        """Have every key come as it is, without echo."""
        self._ours = make_raw(self.input_fd)

    def reset(self) -> bool:
        """Undo every mode of the screen and give the input its settings back; whether the terminal took it all."""
        self.output.close()
        done = send_all(self.output_fd, RESET, UNDO_S)
        self.restore_input()
        return done

    def finish(self) -> bool:
        """Wait for the screen's last words and give all back; whether the modes are known to be undone."""
        if self.modes_set or not self.output.drain():
            return self.reset()
        self.output.close()
        self.restore_input()
        return True

    def restore_input(self) -> None:
        """Give the input the settings it had, unless someone else has changed them since: a shell that came back."""
        if self.before is not None and self._ours in (None, settings_of(self.input_fd)):
            give_back(self.input_fd, self.before)

    def send_noise_to(self, path: Path) -> None:
        """Point descriptors 1 and 2 at the end of ``path``; not in a host, where they have a file of their own."""

    def size(self) -> tuple[int, int]:
        """Columns and rows; 80 x 24 where the terminal does not say."""
        try:
            columns, rows = os.get_terminal_size(self.output_fd)
        except OSError:
            return 80, 24
        return columns or 80, rows or 24


class Noise:
    """What Python's own prints go to while a screen is up: descriptor 2, as it is at that moment; never raises.

    One for the process, and it knows no application: whatever is loaded meanwhile (torch does) and keeps
    ``sys.stderr`` for its messages would keep the screen of a terminal that is long gone.
    """

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write at once."""
        log_text(text)
        return len(text)

    def flush(self) -> None:
        """All is written already."""

    def isatty(self) -> bool:
        """It is a file."""
        return False

    def fileno(self) -> int:
        """The descriptor written to."""
        return 2


NOISE = Noise()


class OwnTerminal(Terminal):
    """The terminal on the process's own standard files."""

    def send_noise_to(self, path: Path) -> None:
        """Point descriptors 1 and 2 at the end of ``path``; where it cannot be opened they stay as they are."""
        with contextlib.suppress(OSError):
            _point_at(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))


def _point_at(fd: int) -> None:
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


@contextlib.contextmanager
def own_terminal(typed: bytes = b"", late_answers: bool = False) -> Iterator[Terminal]:
    """Take the terminal on descriptors 0 and 1 for the screen; give everything back at the end, whatever happened.

    To be used in the main thread: a new size is told by a signal.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = (os.dup(1), os.dup(2))
    terminal = OwnTerminal(open_terminal(1), 0, settings_of(0), typed, late_answers)
    editor = UserEditor(0)
    terminal.edit = editor.run
    former = signal.signal(signal.SIGWINCH, lambda number, frame: terminal.resized())
    _point_at(os.open(os.devnull, os.O_WRONLY))
    try:
        yield terminal
    finally:
        editor.stop()
        terminal.finish()
        signal.signal(signal.SIGWINCH, former)
        for number, fd in zip((1, 2), kept, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        os.close(terminal.output_fd)


def driver_on(terminal: Terminal) -> type[LinuxDriver]:
    """A driver class that reads and writes ``terminal`` instead of the process's standard files."""

    class KilnDriver(TerminalDriver):
        """Textual's driver on this terminal."""

        def __init__(self, app: App[Any], **options: Any) -> None:
            super().__init__(app, terminal, **options)

    return KilnDriver


class TerminalDriver(LinuxDriver):
    """Textual's Linux driver on a given terminal, without signals.

    The parts that say what is written and how input is understood are Textual's; what touches descriptors,
    threads and settings is ours.
    """

    def __init__(self, app: App[Any], terminal: Terminal, **options: Any) -> None:
        # Not LinuxDriver's own, which takes the standard files and sets signal handlers.
        Driver.__init__(self, app, **options)
        self._terminal = terminal
        self.fileno = terminal.input_fd
        self.input_tty = True
        self.attrs_before = None
        self.exit_event = threading.Event()
        self._key_thread = None
        self._writer_thread = None
        self._must_signal_resume = False
        self._in_band_window_resize = False
        self._mouse_pixels = False

    @property
    def can_suspend(self) -> bool:
        """A program started from here would have no terminal."""
        return False

    def _get_terminal_size(self) -> tuple[int, int]:
        return self._terminal.size()

    def write(self, data: str) -> None:
        """Queue ``data`` for the terminal; never blocks."""
        if not self._terminal.lent:
            self._terminal.output.write(data)

    def start_application_mode(self) -> None:
        """Take the terminal: modes, settings, and the thread that reads it."""
        terminal = self._terminal
        self.exit_event.clear()
        self._send_size()
        terminal.modes_set = True
        terminal.on_resize = self._on_resize
        terminal.output.on_recovered = self._repaint
        self.write("\x1b[?1049h")
        self._enable_mouse_support()
        terminal.make_raw()
        self.write("\x1b[?25l\x1b[?1004h")
        if not constants.DISABLE_KITTY_KEY:
            self.write("\x1b[>25u")  # disambiguate, report all keys, and their text
        self._key_thread = threading.Thread(target=self._run_input_thread, name="terminal-input", daemon=True)
        self._key_thread.start()
        self._request_terminal_sync_mode_support()
        self._query_in_band_window_resize()
        self._enable_bracketed_paste()
        self._disable_line_wrap()

    def disable_input(self) -> None:
        """Read no more; what came and was not read is dropped."""
        terminal = self._terminal
        terminal.on_resize = None
        if self._key_thread is not None:
            self._disable_mouse_support()
            self.exit_event.set()
            self._key_thread.join()
            self._key_thread = None
            forget_typed(self.fileno)

    def stop_application_mode(self) -> None:
        """Undo all modes; the input's settings are given back by whoever took the terminal."""
        self.disable_input()
        self._terminal.output.on_recovered = None
        self.write(RESET)
        self._terminal.modes_set = False

    def close(self) -> None:
        """Wait a little until all is written."""
        self._terminal.output.drain()

    def _send_size(self) -> None:
        size = Size(*self._get_terminal_size())
        asyncio.run_coroutine_threadsafe(self._app._post_message(events.Resize(size, size)), loop=self._loop)

    def _on_resize(self) -> None:
        # Terminals that tell their size in-band do it before they have drawn anew, which is when it counts.
        if not self._in_band_window_resize:
            self._send_size()

    def _repaint(self) -> None:
        self._app.call_later(self._app.refresh, layout=True)

    def run_input_thread(self) -> None:
        """Read the terminal until told to stop, or it is gone."""
        terminal = self._terminal
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN)
        keys = _Keys(self._debug)
        self._process(keys.feed(terminal.typed))
        terminal.typed = b""
        while not self.exit_event.is_set():
            if poll.poll(_TICK_S * 1000):
                data = _read(self.fileno)
                if data is None:
                    terminal.hung_up()
                    return
                self._process(keys.feed(without_answers(data) if terminal.late_answers else data))
            self._process(keys.tick())

    def _process(self, messages: list[Message]) -> None:
        for message in messages:
            self.process_message(message)


class _Keys:
    """Bytes from the terminal to messages; nonsense is dropped, never raised."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._parser = XTermParser(debug)
        self._decode = getincrementaldecoder("utf-8")("replace").decode

    def feed(self, data: bytes) -> list[Message]:
        """The messages in ``data``."""
        text = self._decode(data)
        return self._all(self._parser.feed(text)) if text else []

    def tick(self) -> list[Message]:
        """What is due because nothing more came."""
        return self._all(self._parser.tick())

    def _all(self, messages: Iterable[Message]) -> list[Message]:
        got: list[Message] = []
        try:
            got.extend(messages)
        except (ParseError, ValueError, ArithmeticError):  # a size of nothing, a number of a thousand digits
            self._parser = XTermParser(self._debug)
        return got


def _read(fd: int) -> bytes | None:
    """What the terminal sent; None when it is gone."""
    try:
        return os.read(fd, _READ) or None
    except (BlockingIOError, InterruptedError):
        return b""
    except OSError:
        return None
