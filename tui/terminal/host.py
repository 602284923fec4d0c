"""Shows one workplace on whichever terminal called last; callers come and go, the workplace stays.

:class:`Host` has a thread that listens, and :meth:`Host.serve`, which belongs to whoever owns the workplace: the
host's process (:mod:`tui.terminal.process`) in its main thread, `kiln train` in a thread beside its progress bar.
Every caller gets an application of its own; the next one that calls has the present one leave politely.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import DiskError, EngineError, RunError
from engine.text import safe_text
from tui.bridge import RunLike
from tui.ending import code_of, stop_run
from tui.last_words import away_words, idle_words, run_words
from tui.settings import load_settings
from tui.terminal.caller import Caller, answer
from tui.terminal.forgetting import forget_screen
from tui.terminal.host_log import log_text
from tui.terminal.orders import config_file, run_for
from tui.terminal.place import Claim, HostInfo, peer_is_us, write_info
from tui.terminal.wire import ENVIRONMENT, MOST_TEXT, RUN_ENVIRONMENT, Channel, Hello, picked
from tui.version import VERSION
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

POLL_S = 0.5
"""How often a host that nobody is attached to looks whether it may end."""

MOST_HEARD = 16
"""Callers that say hello at once; the next waits until one has, which each does within a few seconds or never."""

NOTE_S = 1.0
"""How often the note about the host is brought up to date."""


class Host:
    """One workplace, one screen at a time.

    Args:
        make_workplace: makes what is shown, once somebody calls.
        claim: the socket to listen on.
        make_run: turns a caller's order into a run.
        tend: called now and then, in a thread of the host's.

    Attributes:
        leaving: the user left for good: end as soon as no run is live.
        signal_code: exit code for callers once a signal has asked for the end.
        idle_since: when the last caller was seen off.
    """

    def __init__(
        self,
        make_workplace: Callable[[], Workplace],
        claim: Claim,
        make_run: Callable[[dict[str, Any]], RunLike | None] = run_for,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        self.leaving = False
        self.signal_code: int | None = None
        self.idle_since = time.monotonic()
        self._shown = False
        self._claim = claim
        self._make_workplace = make_workplace
        self._making = threading.RLock()  # a signal's handler may come in between and ask for the workplace too
        self._workplace: Workplace | None = None
        self._make_run = make_run
        self._tend = tend
        self._environment = picked(os.environ, RUN_ENVIRONMENT)
        self._callers: queue.Queue[Caller] = queue.Queue()
        self._app: KilnApp | None = None
        self._departing: list[Caller] = []
        """Callers off the screen that wait for the run's end."""
        self._goodbyes: list[threading.Thread] = []
        self._closing = False
        self._wake = os.pipe()
        self._started = time.time()
        self._told_run: str | None = None
        self._tell_run()
        self._hearing = threading.BoundedSemaphore(MOST_HEARD)
        self._admitting = threading.Lock()
        self._listener = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._listener.start()

    @property
    def workplace(self) -> Workplace:
        """What is shown."""
        with self._making:
            if self._workplace is None:
                self._workplace = self._make_workplace()
            return self._workplace

    def serve(self, timeout_s: float = POLL_S) -> bool:
        """Show the next caller, if one comes in time; whether one did. For one thread only, always the same."""
        self._tell_departing()
        try:
            caller = self._callers.get(timeout=min(timeout_s, 0.1) if self._departing else timeout_s)
        except queue.Empty:
            return False
        self.leaving, self._shown = self._closing, True
        if caller.hello.attach:
            self._show(caller)
        else:
            self._begin_unseen(caller)
        self.idle_since = time.monotonic()
        return True

    def push_out(self, how: str) -> None:
        """Have the present screen end; from any thread, or a signal handler."""
        app = self._app
        if app is not None:
            app.leave(how)

    def end(self, code: int) -> None:
        """Save and stop what is live, and take no more callers; safe in a signal handler.

        Args:
            code: exit code for those who are told.
        """
        self.signal_code = code
        stop_run(self.workplace)
        self.retire()

    def retire(self) -> None:
        """Take no more callers, and have the screen end; safe in a signal handler."""
        self._closing = self.leaving = True
        self.push_out("ended")

    def close(self) -> None:
        """Listen no more, and see everyone off who is still there."""
        self._closing = True
        os.write(self._wake[1], b"x")
        self._listener.join()
        for _ in range(MOST_HEARD):  # those who are still saying hello are told too
            self._hearing.acquire()
        while not self._callers.empty():
            self._callers.get().refuse(_ending())
        self._tell_departing(final=True)
        for thread in self._goodbyes:
            thread.join()
        self._claim.end()
        for fd in self._wake:
            os.close(fd)

    @property
    def waited_for(self) -> bool:
        """Whether somebody calls, or waits for the run's end."""
        return bool(self._departing) or not self._callers.empty()

    def _listen(self) -> None:
        listener = self._claim.listener
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._wake[0], select.POLLIN)
        while (ready := [fd for fd, _ in poll.poll(NOTE_S * 1000)]) != [self._wake[0]]:
            self._tell_run()
            self._tend()
            if listener.fileno() in ready:
                self._hear(listener)

    def _hear(self, listener: socket.socket) -> None:
        """Take one call, and hear it in a thread of its own: who is slow to say hello holds up nobody else."""
        try:
            link, _ = listener.accept()
            ours = peer_is_us(link)
        except OSError:  # it hung up before it was answered
            return
        if not ours:
            Caller(Channel(link), Hello(), []).refuse(_somebody_else())
            return
        self._hearing.acquire()
        threading.Thread(target=self._answer, args=(link,), name="hello", daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        """Hear one call, and admit it; one after the other, since each may make a run."""
        try:
            if (caller := answer(Channel(link))) is not None:
                with self._admitting:
                    self._admit(caller)
        finally:
            self._hearing.release()

    def _admit(self, caller: Caller) -> None:
        """Check a caller's order, and have the present screen make room."""
        try:
            if self._closing:
                raise _ending()
            caller.settings = load_settings()
            self._take_order(caller)
        except (EngineError, OSError, ValueError, RuntimeError, ImportError) as err:
            caller.refuse(err if isinstance(err, EngineError) else _unforeseen(err))
            # A host that was started for this order alone has nothing to stay for.
            self.leaving = self.leaving or not self._shown
            return
        self._callers.put(caller)
        self.push_out("replaced")

    def _take_order(self, caller: Caller) -> None:
        """Make the run that a caller wants, if it wants one and may have it."""
        order = caller.hello.order
        if order and (differing := _differing(self._environment, caller.hello.run_environment)):
            hint = f"`kill {os.getpid()}` has it save, stop its run and end; or train without --ui."
            raise RunError("The host of this folder was started with another environment", differing, hint)
        caller.run = self._make_run(order)
        if caller.run is not None and self.workplace.live:
            name = safe_text(self.workplace.view.name or "the one that is about to begin")
            raise RunError("A run is live here already", name, "`kiln attach` shows it.")

    def _show(self, caller: Caller) -> None:
        """Show the workplace on the caller's terminal until it leaves, or is made to."""
        how, crash = self._run_app(caller)
        with contextlib.suppress(DiskError):
            self.workplace.save_session()
        self._see_off(caller, "crash" if crash else how, crash)
        forget_screen()

    def _run_app(self, caller: Caller) -> tuple[str, str]:
        """How the caller left, and the traceback if the screen broke."""
        from tui.app import KilnApp

        set_environment(caller.hello.environment)
        terminal = caller.welcome()
        self.workplace.settings = caller.settings
        if caller.run is not None and not self.workplace.live:
            self.workplace.take(caller.run, config_file(caller.hello.order))
        app = self._app = KilnApp(self.workplace, caller.traits, terminal, detachable=True)
        caller.on_leave = app.leave
        terminal.on_lost = partial(app.leave, "hangup")
        # What happened before there was a screen to be told.
        if caller.left:
            app.leave(caller.left)
        elif self._closing:
            app.leave("ended")
        elif not self._callers.empty():
            app.leave("replaced")
        how = app.run() or "detach"
        self._app = caller.on_leave = terminal.on_lost = None
        return how, app.crash

    def _see_off(self, caller: Caller, how: str, crash: str) -> None:
        """Give the caller its terminal back, with the words that fit."""
        self.leaving = self._closing or how in ("leave", "ended")
        if self.workplace.pending is not None and how in ("crash", "cancel"):
            self.workplace.pending = None
            self.leaving = True
        elif how in ("hangup", "detach", "cancel"):  # what did not begin for want of a first frame
            self.workplace.begin_pending()
        if self.leaving and self.workplace.live:
            stop_run(self.workplace)
            caller.release("Saving and stopping the run...\n")
            self._departing.append(caller)
            return
        caller.release(safe_text(crash[-MOST_TEXT:], MOST_TEXT, newlines=True))
        self._end(caller, how)

    def _begin_unseen(self, caller: Caller) -> None:
        """Begin the caller's run without a screen, and say where it is."""
        if caller.run is None or self.workplace.live:
            caller.refuse(RunError("A run is live here already", "", "`kiln attach` shows it."))
            return
        self.workplace.take(caller.run, config_file(caller.hello.order))
        self.workplace.begin_pending()
        while caller.run.alive and caller.run.folder is None:
            caller.run.join(0.02)
        self._end(caller, "detach")

    def _tell_departing(self, final: bool = False) -> None:
        """Say goodbye to those who waited for the run's end, once it has come."""
        if self._departing and (final or not self.workplace.live):
            for caller in self._departing:
                self._end(caller, "leave")
            self._departing.clear()

    def _end(self, caller: Caller, how: str) -> None:
        """Say the last words to a caller that has its terminal back."""
        run = caller.run
        if self.workplace.live:
            text = away_words(self.workplace, how)
        elif how in ("leave", "ended") or run is not None:
            text = run_words(run or self.workplace.run)
        else:
            text = idle_words(how)
        if self.workplace.lost:
            text += f"Not kept: {self.workplace.lost}\n"
        self._goodbyes = [thread for thread in self._goodbyes if thread.is_alive()]
        self._goodbyes.append(
            caller.end(1 if how == "crash" else code_of(self.workplace, run, self.signal_code), text)
        )

    def _tell_run(self) -> None:
        """Keep the note about this host up to date: which run it trains."""
        run = self._workplace.run if self._workplace is not None else None
        folder = run.folder if run is not None and run.alive else None
        now = str(self._claim.folder / folder.root) if folder is not None else ""
        if now != self._told_run:
            self._told_run = now
            info = HostInfo(os.getpid(), str(self._claim.folder), VERSION, self._started, now)
            write_info(self._claim.place, info)


def set_environment(wanted: dict[str, str]) -> None:
    """Have this process draw as the caller's environment says; only what differs is touched: threads may read."""
    for name in ENVIRONMENT:
        if name in wanted and os.environ.get(name) != wanted[name]:
            os.environ[name] = wanted[name]
        elif name not in wanted and name in os.environ:
            del os.environ[name]


def _differing(host: dict[str, str], client: dict[str, str]) -> str:
    """In words, what of two environments is not the same; empty when all is."""
    names = [name for name in RUN_ENVIRONMENT if host.get(name) != client.get(name)]
    return "\n".join(f"{name}: {_value(host, name)} there, {_value(client, name)} here" for name in names)


def _value(environment: dict[str, str], name: str) -> str:
    return safe_text(environment[name]) if name in environment else "not set"


def _unforeseen(err: Exception) -> RunError:
    """What to tell a caller of an error that has no words for users; the log gets all of it."""
    log_text("".join(traceback.format_exception(err)))
    return RunError(
        "The host could not do this", safe_text(f"{type(err).__name__}: {err}"), "Its log, host.log, has the rest."
    )


def _ending() -> RunError:
    return RunError("The host of this folder is ending", "its run is being saved", "Try again in a moment.")


def _somebody_else() -> RunError:
    return RunError(
        "This workstation belongs to another user",
        "only the user who started it can attach",
        "Work in a folder of yours.",
    )
