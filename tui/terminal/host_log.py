"""The host's log: what is no screen, such as libraries' noise and tracebacks. Two files at most, of bounded size."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import traceback
from pathlib import Path

from engine.text import safe_text
from tui.terminal.place import places_of

LARGEST_LOG = 2**20
"""Bytes of a log that is gone on with; a larger one is put aside, in the place of the one before."""


def log_path(folder: Path) -> Path:
    """Where the host of ``folder`` writes."""
    home = folder / ".kiln"
    beside = places_of(folder)[0].stem.with_suffix(".log")
    return home / "host.log" if home.is_dir() and os.access(home, os.W_OK) else beside


def open_log(path: Path) -> int:
    """A descriptor to write at the end of ``path``.

    Raises:
        OSError: it cannot be written, or is no regular file.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size > LARGEST_LOG:
            os.replace(path, path.with_suffix(".old"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(log).st_mode):
        os.close(log)
        raise FileExistsError(f"{path} is no regular file")
    return log


def log_text(text: str) -> None:
    """Write to descriptor 2, where the log is: without secrets, and nothing that a terminal would obey later."""
    with contextlib.suppress(OSError):  # a log that cannot be written is no reason to fail
        os.write(2, safe_text(text, 100_000, newlines=True).encode("utf-8", "replace"))


def log_uncaught() -> None:
    """Have tracebacks of errors that nobody caught, in any thread, go through :func:`log_text`."""
    sys.excepthook = lambda kind, err, trace: log_text("".join(traceback.format_exception(kind, err, trace)))
    threading.excepthook = lambda told: log_text(
        f"In the thread {told.thread.name if told.thread else '?'}:\n"
        + "".join(traceback.format_exception(told.exc_type, told.exc_value, told.exc_traceback))
    )


def keep_small(folder: Path) -> None:
    """Have descriptors 1 and 2, which write the log, begin a new one if it has grown large."""
    with contextlib.suppress(OSError):  # then it grows on
        if os.fstat(2).st_size > LARGEST_LOG:
            log = open_log(log_path(folder))
            for number in (1, 2):
                os.dup2(log, number)
            os.close(log)
