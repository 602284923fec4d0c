"""The full screen in this process's own terminal, without a host: for debugging, and where no socket can be had.

What the screen shows ends with it: a live run is saved and stopped. Only a lost terminal is no reason to lose work:
the run goes on unseen to its next saved point.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine.commands import StopAfterEpoch, StopNow
from engine.text import safe_text
from tui.app import KilnApp
from tui.bridge import RunLike
from tui.ending import code_of, stop_run
from tui.last_words import run_words
from tui.settings import Settings
from tui.signals import STOP_SIGNALS, StopSignals, exit_code_of
from tui.terminal.driver import Terminal, own_terminal
from tui.terminal.place import connect
from tui.terminal.probe import probe
from tui.workplace import Workplace

SIGNALS = (*STOP_SIGNALS, signal.SIGQUIT)

HELD = ("paused", "released")
"""States in which a run comes to no saved point by itself."""


def run_foreground(run: RunLike | None, settings: Settings | None = None) -> int:
    """Show the current folder's workstation, and ``run`` in it, until the user leaves; returns the exit code.

    A run that was not started is begun once the first frame is painted. One that is live when the screen ends (a
    signal, a crash of the screen) is saved and stopped; a second signal, or SIGQUIT, ends the process at once.
    """
    workplace = Workplace(Path.cwd(), settings)
    if (host := connect(Path.cwd())) is not None:
        host.close()
        workplace.shared = True
    if run is not None:
        workplace.take(run)
    asked = Asked(workplace)
    with StopSignals(asked.take, SIGNALS) as signals, _not_suspended():
        how, crash = _show(workplace, asked)
        workplace.pending = None
        shown = workplace.run
        if shown is not None and workplace.live:
            _see_to_its_end(workplace, shown, how)
        workplace.close()
    if how == "hangup" or asked.hung_up:
        return exit_code_of(signal.SIGHUP)
    if crash:
        print(safe_text(crash, 20_000, newlines=True), file=sys.stderr)
        return 1
    if workplace.lost:
        print(workplace.lost, file=sys.stderr)
    print(run_words(shown), end="")
    return code_of(workplace, run, signals.exit_code)


class Asked:
    """What signals ask for: before the screen is up, while it is, and after it.

    Attributes:
        how: how the screen was asked to end, "" while it was not.
        stops: how often an end was asked for.
        hung_up: the terminal was lost.
        over: the screen has ended; what comes now is for the run alone.
    """

    def __init__(self, workplace: Workplace) -> None:
        self.how = ""
        self.stops = 0
        self.hung_up = self.over = False
        self.app: KilnApp | None = None
        self.terminal: Terminal | None = None
        self._workplace = workplace

    def take(self, signum: int) -> None:
        """A signal's handler: the first asks for an end with everything saved, the second ends at once."""
        lost = signum == signal.SIGHUP
        self.hung_up = self.hung_up or lost
        self.stops += not lost
        if self.stops > 1 or signum == signal.SIGQUIT:
            if self.terminal is not None:
                self.terminal.reset()
            os._exit(exit_code_of(signum))
        self.how = self.how or ("hangup" if lost else "leave")
        if self.app is not None:
            self.app.leave(self.how)
        elif self.over and lost:
            let_go_of_terminal()
        elif self.over:
            stop_run(self._workplace)


def _show(workplace: Workplace, asked: Asked) -> tuple[str, str]:
    """How the screen was left, and its traceback if it broke."""
    with own_terminal() as terminal:
        asked.terminal = terminal
        terminal.make_raw()
        probed = probe(terminal.input_fd, terminal.output_fd)
        terminal.typed, terminal.late_answers = probed.typed, not probed.answered
        asked.app = app = KilnApp(workplace, probed.traits, terminal)
        terminal.on_lost = partial(app.leave, "hangup")
        if asked.how:  # before there was a screen to be told
            app.leave(asked.how)
        how = app.run() or "leave"
        asked.app, asked.over = None, True
    asked.terminal = None
    return how, app.crash


@contextlib.contextmanager
def _not_suspended() -> Iterator[None]:
    """A stop would stop the training, and leave the terminal as the screen has it; ctrl+z is a key meanwhile."""
    former = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, former)


def _see_to_its_end(workplace: Workplace, run: RunLike, how: str) -> None:
    """Wait for the end of a run that outlived its screen: saved now, or at its next saved point if nobody looks."""
    if how == "hangup":
        let_go_of_terminal()
        run.submit(StopNow() if workplace.view.state in HELD else StopAfterEpoch())
    else:
        stop_run(workplace)
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("Saving and stopping the run...", file=sys.stderr, flush=True)
    run.join()


def let_go_of_terminal() -> None:
    """Nothing that is printed from now on may fail for want of a terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
