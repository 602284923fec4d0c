"""The client: hands its terminal to the host, waits, and sets the terminal right whatever happened.

It does as little as it can, so that little can go wrong: the host draws, the host reads keys. What stays here is what
only this process can do: it knows the terminal's settings from before, is told of a new size, and is still there
when the host is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import EngineError, RunError
from engine.text import safe_text
from tui.signals import exit_code_of
from tui.terminal.host_log import log_path
from tui.terminal.modes import forget_typed, give_back, make_raw, open_terminal, settings_of, to_plain
from tui.terminal.output import RESET, send_all
from tui.terminal.place import places_of, read_info
from tui.terminal.probe import Probed, probe, settle
from tui.terminal.reach import PROCESS, holder_words, reach
from tui.terminal.user_editor import UserEditor
from tui.terminal.wire import ENVIRONMENT, RUN_ENVIRONMENT, Channel, Hello, Malformed, picked

RELEASE_S = 3.0
"""How long the host may take to let go of the terminal once a signal asked for it."""

SILENCE_S = 5.0
"""How long the host may be silent at the start before the user is told."""

RESET_PATIENCE_S = 30.0
"""How long a terminal that takes no bytes is waited for before it is left in the screen's modes."""

LOG_LINES = 8
"""Last lines of a dead host's log that are shown."""

_ATTEMPTS = 3
_SIGNALS = (signal.SIGWINCH, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGQUIT)


def attach(order: dict[str, Any], folder: Path | None = None, entry: str = PROCESS) -> int:
    """Show the folder's workstation in this terminal until the user leaves it; returns the exit code.

    Args:
        order: what the host is to do first (:mod:`tui.terminal.orders`); empty to show what there is.
        folder: the work folder; the current one when None.
        entry: the module to run as a new host's process.

    Raises:
        RunError: no host can be had.
    """
    place = (folder or Path.cwd()).absolute()
    for _ in range(_ATTEMPTS):
        link, started = reach(place, entry)
        if link is not None:
            with in_charge(Client(Channel(link), place)) as client:
                client.greet(order)
                client.listen()
            if client.code is not None:
                return client.code
            if started:
                break
        # A host that was about to end did not hear us any more.
    raise RunError("The host did not start", log_tail(place), f"All of it is in {safe_text(log_path(place))}")


def begin_unseen(order: dict[str, Any], entry: str = PROCESS) -> int:
    """Have the folder's host carry out ``order`` without a screen; returns the exit code.

    Raises:
        RunError: no host can be had.
    """
    place = Path.cwd()
    for _ in range(_ATTEMPTS):
        link, started = reach(place, entry)
        if link is None:
            continue
        channel = Channel(link)
        hello = Hello(order=order, attach=False, run_environment=picked(os.environ, RUN_ENVIRONMENT))
        channel.send("hello", **hello.to_message())
        with contextlib.closing(channel), contextlib.suppress(EOFError, Malformed):
            while (message := channel.receive()) is not None:
                if message["kind"] in ("end", "refused"):
                    return _tell(message)
        if started:
            break
    raise RunError("The host did not start", log_tail(place), f"All of it is in {safe_text(log_path(place))}")


class Client:
    """One attachment, from hello to the last words.

    Attributes:
        code: the exit code; None while it is not known, and for good when the host never answered.
    """

    def __init__(self, channel: Channel, folder: Path) -> None:
        self.code: int | None = None
        self.signals = -1
        """Descriptor on which signals arrive as bytes."""
        self._channel = channel
        self._folder = folder
        self._output = open_terminal(1)
        self._settings = settings_of(0)
        self._probed: Probed | None = None
        self._attached = self._restored = False
        self._editor = UserEditor(0)
        self._asked = 0
        """The signal that ended the attachment, 0 while none came."""

    def greet(self, order: dict[str, Any]) -> None:
        """Probe the terminal and hand it over; ctrl+c and its like stay signals until the screen is up."""
        make_raw(0, signals=True)
        self._probed = probe(0, self._output)
        hello = Hello(
            order=order,
            traits=self._probed.traits.to_dict(),
            environment=picked(os.environ, ENVIRONMENT),
            run_environment=picked(os.environ, RUN_ENVIRONMENT),
            typed=self._probed.typed,
            answered=self._probed.answered,
            settings=to_plain(self._settings) if self._settings is not None else [],
        )
        self._channel.send_with("hello", hello.to_message(), [0, self._output])

    def listen(self) -> None:
        """Wait for the end, passing on what comes."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        deadline = time.monotonic() + SILENCE_S
        told = False
        while self.code is None:
            waits = self._asked or not (self._attached or told)
            left_ms = max(0.0, deadline - time.monotonic()) * 1000 if waits else None
            ready = [fd for fd, _ in poll.poll(left_ms)]
            former = self._asked
            if self.signals in ready and self._take_signals():
                deadline = time.monotonic() + (0.0 if former else RELEASE_S)
            if self._channel.fileno() in ready and not self._take_messages():
                break
            if waits and time.monotonic() >= deadline:
                if self._asked:
                    break
                told = True
                self._tell_silence()
        if self._asked:
            if self.code is None and self._asked != signal.SIGHUP:
                self.restore(False)
                print("The host goes on by itself.", file=sys.stderr)
            self.code = exit_code_of(self._asked)
        elif self.code is None and self._attached:
            self.code = 1
            self.restore(False)
            print(lost_words(self._folder), file=sys.stderr, end="")

    def restore(self, clean: bool) -> None:
        """Set the terminal right, once; ``clean`` if the screen's modes are known to be undone."""
        if self._restored:
            return
        self._restored = True
        self._editor.stop()
        # A shell may have taken the terminal already: setting it must not stop us.
        former = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        if self._probed is not None:
            if self._attached and not clean:
                send_all(self._output, RESET, RESET_PATIENCE_S)
            if self._attached and self._probed.answered:
                settle(0, self._output, 0.1 + 3 * self._probed.traits.round_trip_ms / 1000)
        if self._settings is not None:
            if self._attached:
                forget_typed(0)
            give_back(0, self._settings)
        signal.signal(signal.SIGTTOU, former)
        self._channel.send("restored")

    def close(self) -> None:
        """Let go of everything."""
        self.restore(False)
        self._channel.close()
        os.close(self._output)

    def _take_signals(self) -> bool:
        """Pass a new size on; True when a signal asks for the end."""
        asked = [number for number in os.read(self.signals, 64) if number != signal.SIGWINCH]
        self._channel.send("resize")
        if not asked:
            return False
        self._asked = self._asked or asked[0]
        self._channel.send("cancel" if asked[0] == signal.SIGINT else "detach")
        return True

    def _edit(self, path: Path) -> None:
        """Run the user's editor on what the host wants edited, with the terminal as it was; in a thread."""

        def work() -> None:
            self._channel.send("edited", error=self._editor.run(path))

        if path.is_absolute() and path.is_file():
            if self._settings is not None:
                give_back(0, self._settings)
            threading.Thread(target=work, name="editor", daemon=True).start()
        else:
            self._channel.send("edited", error="there is no such file here")

    def _tell_silence(self) -> None:
        """The host did not say anything yet: the user may wait or not."""
        text = f"The host of this folder does not answer yet: {holder_words(self._folder)}.\nctrl+c waits no longer."
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(text, file=sys.stderr, flush=True)

    def _take_messages(self) -> bool:
        """Do as the host says; False when it is gone."""
        try:
            while (message := self._channel.receive(0)) is not None:
                kind = message["kind"]
                if kind == "attached":
                    self._attached = True
                elif kind == "edit":
                    self._edit(Path(str(message.get("path", ""))))
                elif kind == "released":
                    self.restore(message.get("clean") is True)
                    _say(message, sys.stderr)
                elif kind in ("end", "refused"):
                    self.restore(kind == "refused")
                    self.code = _tell(message)
        except (EOFError, Malformed):
            return False
        return True


@contextlib.contextmanager
def in_charge(client: Client) -> Iterator[Client]:
    """While ``client`` has handed the terminal over, signals become bytes to it; in the end all is given back."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _noted) for number in _SIGNALS}
    client.signals = reading
    try:
        yield client
    finally:
        client.close()
        signal.set_wakeup_fd(former_fd)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def lost_words(folder: Path) -> str:
    """What to say when the host ended without a word: what it wrote last, and how to go on."""
    text = "The host ended without a word: it was killed, or crashed.\n"
    if tail := log_tail(folder):
        text += f"The last lines of {safe_text(log_path(folder))}:\n{tail}"
    for place in places_of(folder):
        info = read_info(place)
        if info is not None and info.run:
            return text + f"Go on  kiln resume {safe_text(info.run)}\n"
    return text


def log_tail(folder: Path) -> str:
    """The last lines of the host's log, harmless."""
    try:
        with open(log_path(folder), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "".join(f"  {safe_text(line, 300)}\n" for line in lines[-LOG_LINES:] if line.strip())


def _noted(number: int, frame: object) -> None:
    """A signal's handler: the wake-up descriptor has told already."""


def _say(message: dict[str, Any], stream: Any) -> None:
    text = message.get("text")
    if isinstance(text, str) and text:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(safe_text(text, 20_000, newlines=True), end="", file=stream, flush=True)


def _tell(message: dict[str, Any]) -> int:
    """Say the last words, or the error; returns the exit code."""
    code = message.get("code")
    if message["kind"] == "refused":
        from tui.error_text import error_text

        parts = [str(message.get(key, "")) for key in ("title", "detail", "hint")]
        print(error_text(EngineError(*parts)), file=sys.stderr)
        return code if type(code) is int else 2
    _say(message, sys.stdout)
    return code if type(code) is int else 1
