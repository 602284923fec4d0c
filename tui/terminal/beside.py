"""A run that a command trains in its own terminal, reachable by `kiln attach` from any other."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import RunError
from tui.bridge import RunLike
from tui.terminal.host import Host
from tui.terminal.place import Claim, Taken, claim
from tui.workplace import Workplace

ENDING_S = 0.3
"""How long a host that may be ending is waited for."""


@contextlib.contextmanager
def reachable(run: RunLike, folder: Path | None = None) -> Iterator[bool]:
    """While ``run``, which was started, goes on, listen where the host of ``folder`` (the current one) would.

    Yields whether that is so: another process may be the folder's host already. Whoever watches in the end is sent
    away with the run's last words.
    """
    place = folder or Path.cwd()
    claimed = _claimed(place)
    if claimed is None:
        yield False
        return
    with _beside(run, place, claimed):
        yield True


def _claimed(folder: Path) -> Claim | None:
    """The right to be the folder's host; None where another process has it and keeps it."""
    end = time.monotonic() + ENDING_S
    while True:
        try:
            return claim(folder)
        except Taken:
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        except OSError:
            return None


@contextlib.contextmanager
def _beside(run: RunLike, folder: Path, claimed: Claim) -> Iterator[None]:
    made: list[Workplace] = []

    def workplace() -> Workplace:
        made.append(Workplace.around(run, folder))
        return made[0]

    def serve() -> None:
        while not over.is_set():
            host.serve()

    over = threading.Event()
    host = Host(workplace, claimed, _no_orders)
    thread = threading.Thread(target=serve, name="host")
    thread.start()
    try:
        yield
    finally:
        over.set()
        host.retire()
        thread.join()
        host.close()
        for place in made:
            place.close()


def _no_orders(order: dict[str, Any]) -> RunLike | None:
    if order:
        raise RunError("A run is live here already", "`kiln train` works in this folder", "`kiln attach` shows it.")
    return None
