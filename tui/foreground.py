"""The full screen in this process's own terminal, without a host: for debugging, and where no socket can be had.

What the screen shows ends with it: a live run is saved and stopped. Only a lost terminal is no reason to lose work:
the run goes on unseen to its next saved point.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from engine.commands import StopAfterEpoch, StopNow
from engine.text import safe_text
from tui.app import KilnApp
from tui.bridge import RunLike
from tui.ending import code_of, stop_run
from tui.last_words import run_words
from tui.settings import Settings
from tui.signals import StopSignals, exit_code_of
from tui.terminal.driver import own_terminal
from tui.terminal.place import connect
from tui.terminal.probe import probe
from tui.workplace import Workplace

HELD = ("paused", "released")
"""States in which a run comes to no saved point by itself."""


def run_foreground(run: RunLike | None, settings: Settings | None = None) -> int:
    """Show the current folder's workstation, and ``run`` in it, until the user leaves; returns the exit code.

    A run that was not started is begun once the first frame is painted. One that is live when the screen ends (a
    signal, a crash of the screen) is saved and stopped; a second signal ends the process at once.
    """
    workplace = Workplace(Path.cwd(), settings)
    if (host := connect(Path.cwd())) is not None:
        host.close()
        workplace.shared = True
    if run is not None:
        workplace.take(run)
    how, crash, signal_code = _show(workplace)
    workplace.pending = None
    shown = workplace.run
    if shown is not None and workplace.live:
        if how == "hangup":
            _go_on_unseen(workplace)
        else:
            stop_run(workplace)
            _wait_for(shown)
    workplace.close()
    if how == "hangup":
        return exit_code_of(signal.SIGHUP)
    if crash:
        print(safe_text(crash, 20_000, newlines=True), file=sys.stderr)
        return 1
    if workplace.lost:
        print(workplace.lost, file=sys.stderr)
    print(run_words(shown), end="")
    return code_of(workplace, run, signal_code)


def _show(workplace: Workplace) -> tuple[str, str, int | None]:
    """How the screen was left, its traceback if it broke, and the exit code if a signal ended it."""
    with own_terminal() as terminal:
        terminal.make_raw()
        probed = probe(terminal.input_fd, terminal.output_fd)
        terminal.typed, terminal.late_answers = probed.typed, not probed.answered
        app = KilnApp(workplace, probed.traits, terminal)
        terminal.on_lost = partial(app.leave, "hangup")

        def on_signal(signum: int) -> None:
            if signals.count > 1:
                terminal.reset()
                os._exit(exit_code_of(signum))
            app.leave("hangup" if signum == signal.SIGHUP else "leave")

        signals = StopSignals(on_signal)
        with signals:
            how = app.run() or "leave"
    return how, app.crash, signals.exit_code


def _go_on_unseen(workplace: Workplace) -> None:
    """Wait for the live run's next saved point; SIGTERM and SIGINT make it now."""
    run = workplace.run
    assert run is not None
    _let_go_of_terminal()
    with StopSignals(lambda signum: run.submit(StopNow()), (signal.SIGINT, signal.SIGTERM)):
        run.submit(StopNow() if workplace.view.state in HELD else StopAfterEpoch())
        run.join()


def _let_go_of_terminal() -> None:
    """Nothing that is printed from now on may fail for want of a terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


def _wait_for(run: RunLike) -> None:
    """See a run that outlived its screen to its end; the user sees what is waited for."""
    print("Saving and stopping the run...", file=sys.stderr, flush=True)
    with StopSignals(lambda signum: os._exit(exit_code_of(signum))):
        run.join()
