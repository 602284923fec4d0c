"""How a run ends with its screen, or outlives it: stopping what is live, and the exit code of who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.commands import StopNow
from tui.bridge import RunLike
from tui.exit_codes import FINISHED, STOPPED, exit_code
from tui.last_words import end_state

if TYPE_CHECKING:
    from tui.workplace import Workplace


def stop_run(workplace: Workplace) -> None:
    """Have what is live saved and stopped, and what did not begin dropped; safe in a signal handler."""
    if workplace.pending is not None:
        workplace.pending = None
    elif workplace.run is not None:
        workplace.run.submit(StopNow())


def code_of(workplace: Workplace, run: RunLike | None, signal_code: int | None) -> int:
    """The exit code of a command: that of the run it asked for, if there was one and it has ended.

    Args:
        workplace: where it was trained.
        run: what the command asked for; None for one that only wanted to see.
        signal_code: exit code for the signal that ended it, if one did.
    """
    if run is None or run.alive or run is workplace.pending:
        return signal_code or FINISHED
    if run.events.seq == 0:
        return signal_code or STOPPED
    return exit_code(end_state(workplace, run), signal_code)
