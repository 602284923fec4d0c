"""Trains the runs of a sweep one after the other, each in a process of its own.

A process of its own: what one run does to its memory, or to the whole process, is nothing to the next one. The child
is `kiln train` as anybody would start it, so `kiln attach` shows and steers it; signals are handed on to it, and it
saves and stops as it always does. A run that fails does not end the sweep; one whose process was killed is gone on
with when the sweep is. A child that outlived a killed sweep is waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.text import safe_text
from tui.signals import StopSignals
from tui.sweep_file import Found, State, Sweep, held, look_at

STATES: dict[str, State] = {"finished": "finished", "stopped": "stopped"}

LOOK_S = 1.0
"""Time between two looks at a run that another process trains."""

Start = Callable[[list[str]], "subprocess.Popen[bytes]"]


def start_kiln(words: list[str]) -> subprocess.Popen[bytes]:
    """`kiln` with these words, in a process group of its own: ctrl+c reaches it once, from here."""
    command = [sys.executable, "-P", "-m", "tui", *words]
    # The same modules as this process's, wherever they come from.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)


class Runner:
    """Works on one sweep.

    Args:
        sweep: what is to be done.
        say: tells a line.
        consent: go on with runs although something changed that changes what they learn.
        start: starts a `kiln`.

    Attributes:
        stop_signal: the signal that asked for an end; 0 while none did.
    """

    def __init__(
        self, sweep: Sweep, say: Callable[[str], None], consent: bool = False, start: Start = start_kiln
    ) -> None:
        self.sweep = sweep
        self.stop_signal = 0
        self._say = say
        self._consent = consent
        self._start = start
        self._child: subprocess.Popen[bytes] | None = None

    def work(self) -> None:
        """Train every run that is not done; returns when all were tried, or an end was asked for.

        Raises:
            RunError: another process works on the sweep.
            DiskError: the manifest cannot be written.
        """
        terminals = [number for number in (0, 1, 2) if os.isatty(number)]

        def on_hangup(signum: int) -> None:
            _leave(terminals, self.sweep.folder / "log.txt")
            self._hand_on(signum)

        with (
            held(self.sweep),
            StopSignals(self._on_stop, (signal.SIGINT, signal.SIGTERM)),
            StopSignals(on_hangup, (signal.SIGHUP,)),
        ):
            for number, run in enumerate(self.sweep.runs, start=1):
                if self.stop_signal:
                    return
                self._see_to(run.name, f"{number} of {len(self.sweep.runs)}")

    def _see_to(self, name: str, place: str) -> None:
        found = self._wait_for_others(name)
        if not found.done and not self.stop_signal:
            words = self._words(name, found)
            self._say(f"Run {place}: {name}")
            self.sweep = self.sweep.with_state(name, "running")
            code = self._run(words)
            found = look_at(self.sweep, name)
            if not found.done:
                self._say(f"{name}: {found.state if found.folder else 'did not begin'} (exit code {code})")
        state: State = "finished" if found.done else STATES.get(found.state, "failed")
        if not found.done and found.folder is None and self.stop_signal:
            state = "waiting"
        self.sweep = self.sweep.with_state(name, state)

    def _words(self, name: str, found: Found) -> list[str]:
        """What `kiln` is to do about a run."""
        if found.folder is None or found.state == "unreadable":
            return ["train", str(self.sweep.config(name))]
        return ["resume", str(found.folder), *(["--yes"] if self._consent else [])]

    def _wait_for_others(self, name: str) -> Found:
        told = False
        while (found := look_at(self.sweep, name)).live and not self.stop_signal:
            if not told:
                self._say(f"{name} is being trained by another process; waiting for it")
                told = True
            time.sleep(LOOK_S)
        return found

    def _run(self, words: list[str]) -> int:
        child = self._child = self._start(words)
        if self.stop_signal:  # it came while the child was being made
            self._hand_on(self.stop_signal)
        try:
            return child.wait()
        finally:
            self._child = None

    def _on_stop(self, signum: int) -> None:
        self.stop_signal = self.stop_signal or signum
        self._hand_on(signum)

    def _hand_on(self, signum: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signum)


def _leave(terminals: list[int], log: Path) -> None:
    """Point what led to a terminal that is lost at the sweep's log."""
    with contextlib.suppress(OSError):
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for number in terminals:
            os.dup2(out if number else nowhere, number)
        os.close(out)
        os.close(nowhere)


def tell(line: str) -> None:
    """A line of the sweep's own on stderr; a reader that is gone is no reason to end."""
    with contextlib.suppress(OSError):
        print(safe_text(line, 1000), file=sys.stderr, flush=True)


def result_of(sweep: Sweep) -> tuple[list[Path], list[str]]:
    """The folders of the runs that have one, and the names of those that are not done."""
    found = {run.name: look_at(sweep, run.name) for run in sweep.runs}
    folders = [one.folder for one in found.values() if one.folder is not None]
    return folders, [name for name, one in found.items() if not one.done]
