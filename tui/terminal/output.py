"""What the screen writes on: a queue before the terminal, emptied by a thread of its own.

Nothing that a terminal does holds the screen up. One that takes no bytes for a second loses frames, and gets a whole
new one as soon as it takes bytes again; one that is gone loses all. Neither raises anything.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

STALL_S = 1.0
"""Longest wait for a terminal that takes no bytes, before frames are dropped."""

MOST_WAITING = 2_000_000
"""Characters that may wait behind others; a screenful with a picture is a tenth of it."""

CANCEL = "\x18\x1b\\"
"""Ends whatever sequence was cut off in the middle: CAN for most, a string terminator for pictures and titles."""

RESET = (
    CANCEL + "\x1b[?2026l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l"
    "\x1b[?2048l\x1b[?7h\x1b]22;\x07\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""Undoes every mode that the screen sets."""

DRAIN_S = 3.0
"""Longest wait at the end for a terminal that takes bytes, but slowly."""

_SLICE_S = 0.25
_BLOCKING_CHUNK = 256
"""Bytes that a terminal that says it is ready takes without blocking."""


class TerminalOutput:
    """Text on its way to a terminal: UTF-8, never raising, never blocking the one who writes."""

    def __init__(self, fd: int, stall_s: float = STALL_S) -> None:
        self.on_recovered: Callable[[], None] | None = None
        """Called, in the writing thread, when a terminal that lost frames takes bytes again."""
        self.on_lost: Callable[[], None] | None = None
        """Called, in the writing thread, when the terminal turns out to be gone."""
        self.lost = False
        self.stalled = False
        self._fd = fd
        self._stall_s = stall_s
        self._chunk = _BLOCKING_CHUNK if os.get_blocking(fd) else 65_536
        self._waiting: list[str] = []
        self._length = 0
        self._dropping = self._sending = self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="terminal-output", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """The descriptor written to."""
        return self._fd

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Queue ``text``; it is dropped while the terminal takes nothing."""
        with self._changed:
            # What comes to an empty queue is taken however long it is: nothing behind it would end the dropping.
            if self._length and self._length + len(text) > MOST_WAITING:
                self._dropping = True
            if not (self._dropping or self.lost or self._closing):
                self._waiting.append(text)
                self._length += len(text)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Text goes out by itself."""

    def drain(self) -> bool:
        """Wait a little until all is sent, as long as the terminal takes some of it; whether it all was."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.lost or self.stalled or self._dropping or not (self._waiting or self._sending), DRAIN_S
            )
            return done and not (self.lost or self.stalled or self._dropping)

    def close(self) -> None:
        """Send what is queued if the terminal takes it, and end the thread; the descriptor stays open."""
        self.drain()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            # Its end is not waited for longer: it is a daemon, and a descriptor that blocks may hold it.
            self._thread.join(2 * self._stall_s)

    def _work(self) -> None:
        while (text := self._take()) is not None:
            sent = self._send(memoryview(text.encode("utf-8", "replace")))
            if not sent and not self.lost:
                self._wait_out_stall()
            self._sent()
        if self.lost and self.on_lost is not None:
            self.on_lost()

    def _take(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing or self.lost)
            if self.lost or not self._waiting:
                return None
            text = "".join(self._waiting)
            self._waiting.clear()
            self._length = 0
            self._sending = True
            return text

    def _send(self, data: memoryview) -> bool:
        while data and not self._closing:
            try:
                if self._chunk == _BLOCKING_CHUNK and not writable(self._fd, self._stall_s):
                    return False
                data = data[os.write(self._fd, data[: self._chunk]) :]
            except BlockingIOError:
                if not writable(self._fd, self._stall_s):
                    return False
            except OSError:
                self._lose()
                return False
        return not data

    def _wait_out_stall(self) -> None:
        """Drop everything until the terminal takes bytes again."""
        with self._changed:
            self.stalled = self._dropping = True
            self._changed.notify_all()
        while not (self._closing or self.lost or writable(self._fd, _SLICE_S)):
            pass
        with self._changed:
            self._waiting.clear()
            self._length = 0
            self.stalled = False
        if not (self._closing or self.lost):
            self._send(memoryview(CANCEL.encode()))

    def _sent(self) -> None:
        with self._changed:
            self._sending = False
            recovered = self._dropping and not self._waiting and not self._closing and not self.lost
            if recovered:
                self._dropping = False
            self._changed.notify_all()
        if recovered and self.on_recovered is not None:
            self.on_recovered()

    def _lose(self) -> None:
        with self._changed:
            self.lost = True
            self._changed.notify_all()


def writable(fd: int, timeout_s: float) -> bool:
    """Wait until ``fd`` takes bytes, or is gone (writing tells); False when neither happened in time."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


def send_all(fd: int, text: str, patience_s: float) -> bool:
    """Write ``text`` to a terminal that may take no bytes, or be gone; whether all of it went out in time."""
    data = memoryview(text.encode())
    end = time.monotonic() + patience_s
    while data:
        if not writable(fd, max(0.0, end - time.monotonic())):
            return False
        try:
            data = data[os.write(fd, data[:_BLOCKING_CHUNK]) :]
        except BlockingIOError:
            continue
        except OSError:
            return False
    return True
