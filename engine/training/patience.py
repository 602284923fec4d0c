"""What a run does when the disk refuses: it holds, says what is wrong, and does the same work again later.

Nothing of a run hangs on when its files are written, so a full disk need not end it. Work that writes is done inside
:meth:`Patience.persist`; where it fails, the reserve is given up for it first, then the run is paused until the user
resumes it, or tries again by itself now and then, in case nobody is there. A second wish to stop ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from engine.commands import Pause
from engine.errors import DiskError, DiskFull
from engine.events import EventLog, Log
from engine.text import safe_text
from engine.training.control import Control
from engine.training.ledger import Ledger
from engine.training.room import Room

T = TypeVar("T")

RETRY_S = 30.0
"""How often a held run tries again by itself."""

POLL_S = 0.5


class Patience:
    """Holds one run while the disk refuses what it has to write.

    Args:
        room: the disk under the run's folder.
        events: where it is told.
        control: what the user asks meanwhile.
        ledger: its clock stands still meanwhile.
        settle: waits until what is being saved stands, or raises what went wrong.
        enter: enters a state of the run, with a reason, and returns the one before.
        alone: False where other processes would wait for this one in vain: then nothing is held, errors end the run.
    """

    def __init__(
        self,
        room: Room,
        events: EventLog,
        control: Control,
        ledger: Ledger,
        settle: Callable[[], None],
        enter: Callable[..., str],
        alone: bool = True,
    ) -> None:
        self.room = room
        self.events = events
        self.control = control
        self.ledger = ledger
        self.settle = settle
        self.enter = enter
        self.alone = alone
        self._gave_up = False
        self._before = ""
        self._told = ""
        self._began = 0.0

    def persist(self, work: Callable[[], T], last: bool = False) -> T:
        """Do ``work``, which may be done again where it breaks off; hold the run while the disk refuses it.

        Args:
            last: nothing is to be written after it, so no reserve need be there for more.

        Raises:
            DiskError: the disk refused it once more after a stop was asked for.
        """
        result = self._until_done(work)
        if self.room.spent:
            self._until_done(self.settle)
        while self.room.spent and not (last or self._gave_up or self.control.stop_now):
            try:
                self.room.refill()
            except DiskError as err:
                self._hold(err)
        self._go_on()
        return result

    def _until_done(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except DiskError as err:
                if self._gave_up or not self.alone:
                    raise
                failed = err
            if isinstance(failed, DiskFull) and self.room.give_up():
                text = "The disk is full: the room kept in reserve is given up for what is to be saved now"
                self.events.append(Log("warning", text))
            else:
                self._hold(failed)

    def _hold(self, err: DiskError) -> None:
        """Say what is wrong and wait: for the user, or a while."""
        if not self._before:
            self._began = time.monotonic()
            self._before = self.enter("paused", err.title)
        if err.title != self._told:
            self._told = err.title
            how = (
                f"Paused: the run tries again every {RETRY_S:.0f} s, and when you resume it. Stopping it tries once "
                "more, then ends it."
            )
            text = f"{err.title}: {err.detail}. {err.hint} {how}"
            self.events.append(Log("error", safe_text(" ".join(text.split()), 2000)))
            if isinstance(err, DiskFull):
                self.room.offer()
        self._wait()

    def _wait(self) -> None:
        control = self.control
        asked, stopping, control.pause, control.stop_now = control.pause, control.stop_now, Pause(), False
        end = time.monotonic() + RETRY_S
        while control.pause is not None and not control.stop_now and time.monotonic() < end:
            control.wait(min(POLL_S, RETRY_S))
            self.tidy()
            if control.save_now:  # what could not be saved is saved first; that is all there is to save
                control.save_now, control.pause = False, None
        self._gave_up = control.stop_now
        control.pause = asked if control.pause is not None else None
        control.stop_now = control.stop_now or stopping

    def tidy(self) -> None:
        """Remove what the user marked for it."""
        if self.control.remove:
            marked, self.control.remove = self.control.remove, ()
            self.room.remove(marked)

    def _go_on(self) -> None:
        if not self._before:
            return
        self.events.append(Log("info", "Everything is on the disk"))
        self.ledger.leave_out(time.monotonic() - self._began)
        self.enter(self._before)
        self._before = self._told = ""
