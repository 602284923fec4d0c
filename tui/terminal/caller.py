"""One client as the host sees it: its terminal, its wishes, and what it is told in the end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from engine.errors import EngineError, RunError
from engine.text import safe_text
from tui.bridge import RunLike
from tui.settings import Settings
from tui.terminal.modes import from_plain
from tui.terminal.traits import Traits
from tui.terminal.wire import HELLO_S, MOST_TEXT, Channel, Hello, Malformed, hello_from
from tui.version import VERSION

if TYPE_CHECKING:
    from tui.terminal.driver import Terminal

_GONE = "the terminal is gone"

GOODBYE_S = 2.0
"""How long a client may take to set its terminal right before the host does it."""


class Caller:
    """A client that said hello.

    Attributes:
        run: the run that it asked for, set by the host; None for one that only wants to see.
        settings: the user's, as they are when it calls.
        gone: it has hung up.
        left: how it asked to leave: "hangup", "detach" or "cancel"; empty until it does.
    """

    def __init__(self, channel: Channel, hello: Hello, descriptors: list[int]) -> None:
        self.hello = hello
        self.run: RunLike | None = None
        self.settings = Settings()
        self.gone = False
        self.left = ""
        self.on_leave: Callable[[str], None] | None = None
        """The screen's, while it is up: called with what :attr:`left` becomes."""
        self._channel = channel
        self._descriptors = descriptors
        self._terminal: Terminal | None = None
        self._restored = False
        self._edited: SimpleQueue[str] = SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, name="caller", daemon=True)

    @property
    def traits(self) -> Traits:
        """What its terminal can do."""
        return Traits.from_dict(self.hello.traits)

    def refuse(self, error: EngineError, code: int = 2) -> None:
        """Tell what is wrong, and hang up."""
        detail = error.detail[:MOST_TEXT]
        self._channel.send("refused", title=error.title, detail=detail, hint=error.hint, code=code)
        self._close()

    def welcome(self) -> Terminal:
        """Take its terminal; from now on it is listened to."""
        from tui.terminal.driver import Terminal

        output, source = self._descriptors[1], self._descriptors[0]
        self._terminal = Terminal(output, source, None, self.hello.typed, not self.hello.answered)
        self._terminal.edit = self._edit
        self._channel.send("attached", pid=os.getpid())
        self._watcher.start()
        return self._terminal

    def release(self, text: str = "") -> None:
        """The screen is over: the client may have its terminal back, and tell ``text`` on it."""
        assert self._terminal is not None
        clean = self._terminal.finish()
        self.gone = not self._channel.send("released", clean=clean, text=text) or self.gone

    def end(self, code: int, text: str = "") -> threading.Thread:
        """Say the last words; returns the thread that sees the terminal set right if the client cannot."""
        self._channel.send("end", code=code, text=text)
        thread = threading.Thread(target=self._see_off, name="goodbye", daemon=True)
        thread.start()
        return thread

    def _edit(self, path: Path) -> str:
        """Have the client run its user's editor, and wait for the end; what went wrong comes back."""
        return self._edited.get() if self._channel.send("edit", path=str(path)) else _GONE

    def _watch(self) -> None:
        """Listen until it hangs up."""
        while True:
            try:
                message = self._channel.receive()
            except (EOFError, Malformed):
                self.gone = True
                self._edited.put(_GONE)
                self._leave("hangup")
                return
            kind = message["kind"] if message is not None else ""
            if kind == "resize" and self._terminal is not None:
                self._terminal.resized()
            elif kind in ("detach", "cancel"):
                self._leave(kind)
            elif kind == "edited" and message is not None:
                self._edited.put(safe_text(message.get("error", ""), 200))
            elif kind == "restored":
                self._restored = True

    def _leave(self, how: str) -> None:
        self.left = self.left or how
        if self.on_leave is not None:
            self.on_leave(how)

    def _see_off(self) -> None:
        if self._watcher.ident is not None:
            self._watcher.join(GOODBYE_S)
        if self._terminal is not None and not self._restored:
            self._terminal.before = from_plain(self.hello.settings)
            self._terminal.reset()
        self._close()

    def _close(self) -> None:
        self._channel.close()
        if threading.current_thread() is not self._watcher and self._watcher.ident is not None:
            self._watcher.join()
        close_all(self._descriptors)
        self._descriptors = []


def answer(channel: Channel) -> Caller | None:
    """Hear what a client that just connected wants; None if it was no client, or was refused."""
    descriptors: list[int] = []
    try:
        message = channel.receive_with(descriptors, HELLO_S)
        if message is None:
            raise Malformed("no hello")
        if message.get("release") != VERSION:
            Caller(channel, Hello(), descriptors).refuse(_other_version(message.get("release")))
            return None
        hello = hello_from(message)
        wanted = 2 if hello.attach else 0
        if len(descriptors) != wanted or not all(os.isatty(fd) for fd in descriptors):
            raise Malformed("descriptors")
    except (EOFError, Malformed):
        close_all(descriptors)
        channel.close()
        return None
    return Caller(channel, hello, descriptors)


def close_all(descriptors: list[int]) -> None:
    """Close ``descriptors``."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


def _other_version(release: object) -> RunError:
    return RunError(
        "Another version of lorakiln works in this folder",
        f"its process {os.getpid()} is {VERSION}, this is {str(release)[:40]}",
        f"`kill {os.getpid()}` has it save, stop its run and end; then try again.",
    )
