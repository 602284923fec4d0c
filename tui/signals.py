"""Signals from outside: SIGINT and SIGTERM mean save and stop, never die at once; SIGHUP is a lost terminal.

Used by the screen and by the headless commands alike. The handler only notes the signal and calls one function that
must not block (``run.submit(StopNow())`` is safe in a handler); the process then ends in its own time with the exit
code that shells expect, 128 + the signal's number.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType

STOP_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends commands that have nothing to go on with once their terminal is gone."""


def exit_code_of(signum: int) -> int:
    """The exit code of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + signum


class StopSignals:
    """A context in which the stop signals call ``on_signal(signum)`` instead of ending the process.

    ``received`` is the first signal that came, None before; ``count`` says how many came, so that a caller can
    give in to an impatient user. Must be entered in the main thread. Signals that are ignored stay so (nohup);
    the former handlers return on exit.
    """

    def __init__(self, on_signal: Callable[[int], None], numbers: Iterable[signal.Signals] = STOP_SIGNALS) -> None:
        self._on_signal = on_signal
        self._numbers = tuple(numbers)
        self._former: dict[signal.Signals, object] = {}
        self.received: int | None = None
        self.count = 0

    @property
    def exit_code(self) -> int | None:
        """128 + the first signal, None when none came."""
        return None if self.received is None else exit_code_of(self.received)

    def __enter__(self) -> StopSignals:
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, or in the background of a script
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]
        self._former.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum
        self.count += 1
        self._on_signal(signum)
