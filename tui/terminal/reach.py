"""A client's way to the host of a folder: the one that listens, or a new one.

A new host is a process in a session of its own, so it has no controlling terminal and outlives the login. It
inherits a socket that listens already: the client need not wait for it to come up before it connects.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from engine.errors import RunError
from engine.text import safe_text
from tui.terminal.host_log import log_path, open_log
from tui.terminal.place import Claim, Taken, claim, connect, places_of, read_info

PROCESS = "tui.terminal.process"
"""The module that is the host's process."""

ANSWER_S = 15.0
"""How long a host that neither listens nor has ended is waited for."""

_POLL_S = 0.02


def reach(folder: Path, entry: str = PROCESS, start: bool = True) -> tuple[socket.socket | None, bool]:
    """A connection to the host of ``folder``, and whether that host was started for it.

    Args:
        folder: the work folder.
        entry: the module to run as a new host's process.
        start: start a host if there is none; without it the connection may be None.

    Raises:
        RunError: no host can be had.
    """
    end = time.monotonic() + ANSWER_S
    while True:
        link = connect(folder)
        if link is not None or not start:
            return link, False
        try:
            _start_host(folder, entry)
        except Taken as err:  # by one that starts at this moment, or is about to end
            if time.monotonic() > end:
                raise RunError("The host of this folder does not answer", holder_words(folder), "") from err
            time.sleep(_POLL_S)
        except OSError as err:
            hint = "Use --foreground to do without a host."
            raise RunError("No host can be started", f"{safe_text(err)}", hint) from err
        else:
            return connect(folder), True


def _start_host(folder: Path, entry: str) -> None:
    claimed = claim(folder)
    try:
        with contextlib.suppress(OSError):  # a folder that cannot be written has its log elsewhere
            (folder / ".kiln").mkdir(mode=0o700, exist_ok=True)
        log = open_log(log_path(folder))
        try:
            _spawn(claimed, folder, entry, log)
        finally:
            os.close(log)
    finally:
        claimed.close()


def _spawn(claimed: Claim, folder: Path, entry: str, log: int) -> None:
    descriptors = (claimed.listener.fileno(), claimed.lock)
    command = [sys.executable, "-P", "-m", entry, str(folder), str(claimed.place.stem), *map(str, descriptors)]
    subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        start_new_session=True,
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The same modules as this process's, from any folder, and nothing of a multiplexer's pane that will be gone."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**ours, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def holder_words(folder: Path) -> str:
    """Which process is the host of ``folder``, for one who gets no answer from it."""
    for place in places_of(folder):
        info = read_info(place)
        if info is not None:
            return f"process {info.pid}; `kill -9 {info.pid}` ends it if it hangs"
    return "its socket is gone, its lock is held"
