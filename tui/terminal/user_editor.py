"""The user's own editor, run on a terminal that the screen has let go of.

It runs where the terminal is the controlling one: in the client, or in this process where there is no host. It gets a
process group of its own, which has the terminal meanwhile: ctrl+c and its like reach the editor alone, and what it
does to the terminal's settings is undone when it ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.text import safe_text
from tui.terminal.modes import give_back, settings_of

USUAL = ("sensible-editor", "nano", "vi")
"""What is tried where the environment names no editor."""

LOOK_S = 0.05
STOP_S = 2.0
"""How long an editor may take to end once it is told to."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The program that $VISUAL or $EDITOR names with its arguments, else the first usual one; empty for none."""
    for name in ("VISUAL", "EDITOR"):
        with contextlib.suppress(ValueError):  # quotes without an end
            if words := shlex.split(environment.get(name, "")):
                return words
    return next(([found] for name in USUAL if (found := shutil.which(name))), [])


class UserEditor:
    """One editor at a time on one terminal.

    Args:
        terminal: a descriptor of the terminal, which must be this process's controlling one.
    """

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._child: subprocess.Popen[bytes] | None = None
        self._free = threading.Event()
        self._free.set()

    def run(self, path: Path, environment: Mapping[str, str] = os.environ) -> str:
        """Have the user edit a file, and wait for the end; what went wrong, safe to show, or nothing."""
        command = editor_command(environment)
        if not command:
            return "no editor is found: set EDITOR to one"
        self._free.clear()
        try:
            with self._terminal_file() as file:
                return self._run([*command, str(path)], file)
        except (OSError, ValueError) as err:
            return safe_text(f"{command[0]}: {getattr(err, 'strerror', None) or err}", 200)
        finally:
            self._child = None
            self._free.set()

    def stop(self) -> None:
        """End the editor, if one runs: the terminal is wanted, or gone."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            child = self._child
            if child is None or self._free.is_set():
                return
            with contextlib.suppress(OSError):
                os.killpg(child.pid, number)
            self._free.wait(STOP_S)

    @contextlib.contextmanager
    def _terminal_file(self) -> Iterator[int]:
        """A descriptor that blocks, whatever ours does: an editor expects no other."""
        file = os.open(os.ttyname(self._terminal), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)

    def _run(self, command: list[str], file: int) -> str:
        before, ours = settings_of(file), os.getpgrp()
        child = subprocess.Popen([*command], stdin=file, stdout=file, stderr=file, process_group=0)
        self._child = child
        try:
            _hand_over(file, child.pid)
            while (code := _status(child)) is None:
                # It may have wanted the terminal before it had it, and was stopped for that; and there is no shell
                # that would wake one that stops itself.
                if os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG) is not None:
                    _hand_over(file, child.pid)
                    os.killpg(child.pid, signal.SIGCONT)
        finally:
            _hand_over(file, ours)
            if before is not None:
                give_back(file, before)
        return "" if code == 0 else safe_text(f"{command[0]} ended with {code}; nothing was taken", 200)


def _status(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(LOOK_S)
    except subprocess.TimeoutExpired:
        return None


def _hand_over(file: int, group: int) -> None:
    """Give the terminal to a process group; who asks from the background would be stopped for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(file, group)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})
