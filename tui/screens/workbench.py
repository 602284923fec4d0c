"""The workbench: dataset, caption, training, samples and log side by side; one pane at a time when small.

The first frame shows the frames of the panes; what is in them is mounted after it, and from then on kept up to date
by :mod:`tui.screens.feed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from engine.errors import EngineError
from tui.keys.key import bindings
from tui.keys.run import RUN_KEYS
from tui.keys.workbench import WORKBENCH_KEYS
from tui.screens.panes import PANES, TITLES, Slot
from tui.screens.ways import Ways
from tui.view import SMOOTHINGS
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.status import ProgressLine, StatusLine

if TYPE_CHECKING:
    from tui.opening import Found
    from tui.screens.feed import Feed

POLL_S = 0.25

SHORT_RUN = 1_000
"""Steps below which the strong average would lag behind for most of the run."""

WEAKER = 1
"""Index of the weaker average in ``SMOOTHINGS``."""

CHOOSE, RAW = -2, -1
"""The session's words for a smoothing that was not chosen, and for none."""


class Workbench(Ways):
    """The main screen."""

    CSS_PATH: ClassVar = ["workbench.tcss", "dataset.tcss", "caption.tcss"]
    BINDINGS = bindings(RUN_KEYS + WORKBENCH_KEYS)

    def compose(self) -> ComposeResult:
        """Header lines, the panes' places, footer."""
        yield StatusLine()
        yield ProgressLine()
        with Horizontal(id="columns"):
            yield self._slot(1)
            yield self._slot(2)
            with Vertical(id="run-column"):
                yield self._slot(3)
                yield self._slot(4)
                yield self._slot(5)
        yield KeyLine()
        yield Notice()

    def _slot(self, number: int) -> Slot:
        return Slot(PANES[number - 1], f"{number} {TITLES[number - 1]}")

    feed: Feed | None = None
    """Keeps the panes up to date; None before they are there."""

    _begun = False
    _offering = False
    """A run that broke off is to be offered as soon as its events are read."""

    def on_mount(self) -> None:
        """Lay out; all else comes after the first frame."""
        self.lay_out(self.app.size.width, self.app.size.height)

    def painted(self) -> None:
        """A frame is on the terminal: after the first one all else begins."""
        if not self._begun:
            self._begun = True
            self.call_later(self._fill)

    async def _fill(self) -> None:
        """Mount the panes and begin: the first frame is on the screen."""
        # In a thread: the panes bring numpy and more, and the screen answers meanwhile.
        fill = await asyncio.to_thread(_the_fill)
        self.feed = await fill(self)
        self.show_smoothing()
        self.workplace.begin_pending()
        last = self.workplace.session
        self.run_worker(partial(self._search, last.run, last.config), thread=True, exit_on_error=True)
        self.go_to(self.current)
        self.set_interval(POLL_S, self.poll)
        self.poll()

    def _search(self, last_run: str, last_config: str) -> None:
        """Look for what to open; in a thread: it reads files, asks the driver."""
        from tui.machine import machine_in_words
        from tui.opening import Found, search
        from tui.preload import load_rest

        place = self.workplace
        found = search(place.folder, last_run, last_config) if place.config is None else Found()
        self.app.call_later(self._take_up, found)
        place.machine = place.machine or machine_in_words()
        load_rest()

    def _take_up(self, found: Found) -> None:
        """Open what was found."""
        from tui.opening import take_up

        try:
            if unfinished := take_up(self.workplace, found):
                self._tell_unfinished(unfinished, found.broke_off)
        except EngineError as err:
            found.lost = found.lost or err
        if found.lost is not None:
            self.app.warn(found.lost)
        self.return_to_screen()

    def _tell_unfinished(self, name: str, broke_off: bool) -> None:
        """Say that a run can be gone on with; of one that broke off, ask, once its events are read."""
        root, session = str(self.run_root() or ""), self.workplace.session
        if broke_off and root != session.offered:
            session.offered = root
            self.go_to("training")
            self._offering = True
        else:
            self.app.say(f"{name} did not finish: enter in the training pane (3) goes on with it", 8.0)

    def _offer(self) -> None:
        """Ask whether to go on with the run that broke off, unless the user is elsewhere already."""
        if self._offering and self.run_view.seq:
            self._offering = False
            if self.is_current and self.run_view.state == "interrupted":
                self.action_start()

    def show_all(self) -> None:
        """Hand the state to every widget in sight, after a change of layout."""
        if self.feed is not None:
            self.feed.show_all()

    def poll(self) -> None:
        """Show what is new."""
        if self.feed is not None:
            self.feed.poll()
        self._take_state()
        self._offer()
        self.forget_taken()
        self.take_losses()
        self.mind_pilot()
        self.mind_captioning()
        if self.leave_when_ended and not self.workplace.live:
            self.app.leave("leave")

    def run_root(self) -> Path | None:
        """The folder of the run that is shown."""
        run = self.workplace.run
        return run.folder.root if run is not None and run.folder is not None else None

    def plan_in_words(self) -> str:
        """What starting would do, in a sentence."""
        if self.workplace.config is None:
            return "No configuration is open."
        from tui.plan import plan_lines

        return "\n".join(
            f"{label:<9} {text}" for label, text in plan_lines(self.workplace.config, self.workplace.catalog.rows)
        )

    def action_smoothing(self) -> None:
        """The next smoothing of the loss: strong, weaker, stronger, none."""
        if self.feed is None:
            return
        order: list[int | None] = [*range(len(SMOOTHINGS)), None]
        chosen = order[(order.index(self.feed.training.smoothing) + 1) % len(order)]
        self.workplace.session.smoothing = RAW if chosen is None else chosen
        self.show_smoothing()

    def show_smoothing(self) -> None:
        """The smoothing that was chosen, else the one that suits the run's length; and the range."""
        if self.feed is None:
            return
        chosen = self.workplace.session.smoothing
        if chosen == CHOOSE:
            chosen = WEAKER if 0 < self.run_view.steps < SHORT_RUN else 0
        self.feed.training.smooth(chosen if 0 <= chosen < len(SMOOTHINGS) else None)
        self.feed.training.set_window(self.workplace.session.window)

    def action_range(self, by: int) -> None:
        """Halve or double the visible range of all plots."""
        from tui.widgets.plot import WINDOWS

        session = self.workplace.session
        session.window = max(0, min(WINDOWS, session.window + by))
        self.show_smoothing()


def _the_fill() -> Callable[[Workbench], Awaitable[Feed]]:
    from tui.screens.filling import fill

    return fill
