"""The host's process: in a session of its own, without a terminal, descriptors 1 and 2 on its log.

Started by a client (:mod:`tui.terminal.reach`) that hands it the listening socket and the lock. It ends when the user
leaves and no run is live, after a while with neither screen nor run, and on SIGTERM or SIGINT, which save and stop
the run first; a second one ends it at once. SIGHUP means nothing to it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.bridge import RunLike
    from tui.terminal.host import Host
    from tui.workplace import Workplace

IDLE_S = 600.0
"""How long a host without screen and run stays; ``$LORAKILN_HOST_IDLE_S`` says otherwise."""


def main(
    words: Sequence[str] | None = None, make_run: Callable[[dict[str, Any]], RunLike | None] | None = None
) -> int:
    """Be the host of a folder.

    Args:
        words: the folder, the stem of its files, and the descriptors of socket and lock.
        make_run: turns a caller's order into a run; :func:`tui.terminal.orders.run_for` when None.
    """
    # What imports make stays; looking for garbage among it is a fifth of the time to the first frame.
    gc.set_threshold(50_000)
    folder, stem, listener, lock = sys.argv[1:] if words is None else words
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir(folder)
    # While the client still asks its terminal: what the first frame needs.
    import tui.app  # noqa: F401
    from tui.signals import StopSignals, exit_code_of
    from tui.terminal.host import Host
    from tui.terminal.host_log import keep_small, log_uncaught
    from tui.terminal.orders import run_for
    from tui.terminal.place import Claim, Place
    from tui.workplace import Workplace

    log_uncaught()
    claim = Claim(Path(folder), Place(Path(stem)), int(lock), socket.socket(fileno=int(listener)))
    # A child that outlives this process must not hold the folder.
    os.set_inheritable(claim.lock, False)
    claim.listener.set_inheritable(False)
    workplace = Workplace(Path(folder))
    host = Host(lambda: workplace, claim, make_run or run_for, partial(keep_small, Path(folder)))

    def on_signal(signum: int) -> None:
        if signals.count > 1:
            os._exit(exit_code_of(signum))  # asked twice: at once, whatever is lost; the client sees to the terminal
        host.end(exit_code_of(signum))

    signals = StopSignals(on_signal, (signal.SIGINT, signal.SIGTERM))
    with signals:
        try:
            while not _is_over(host, workplace):
                host.serve()
        finally:
            if workplace.run is not None and workplace.live:
                host.end(1)
                if workplace.run.alive:
                    workplace.run.join()
            host.close()
            workplace.close()
    return signals.exit_code or 0


def _is_over(host: Host, workplace: Workplace) -> bool:
    if workplace.live:
        host.idle_since = time.monotonic()
        return False
    if workplace.captioning is not None and workplace.captioning.alive:
        host.idle_since = time.monotonic()
    if host.waited_for:
        return False
    return host.leaving or time.monotonic() - host.idle_since > _idle_s()


def _idle_s() -> float:
    try:
        return float(os.environ.get("LORAKILN_HOST_IDLE_S", IDLE_S))
    except ValueError:
        return IDLE_S


if __name__ == "__main__":
    sys.exit(main())
