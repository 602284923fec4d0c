"""What `kiln` returns to the shell. Documented in the README; scripts and schedulers rely on them."""

from __future__ import annotations

FINISHED = 0
"""All that was asked is done."""

FAILED = 1
"""The run, or a command's work, failed on the way; a run's folder holds what was saved before."""

BAD_INPUT = 2
"""Nothing was started: bad usage, a configuration that cannot be used, a folder that is no run."""

STOPPED = 3
"""The run was stopped on request before its end; `kiln resume` goes on with it."""


def exit_code(reason: str | None, signal_code: int | None = None) -> int:
    """Exit code of a run.

    Args:
        reason: how it ended: "finished", "stopped", "failed" or None.
        signal_code: 130 or 143 when SIGINT or SIGTERM asked it to stop; wins over :data:`STOPPED` only.
    """
    if reason == "finished":
        return FINISHED
    if reason == "stopped":
        return signal_code if signal_code is not None else STOPPED
    return FAILED
