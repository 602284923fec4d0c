"""From the workplace to the widgets of the workbench: polled, and only to those in sight that are concerned.

Plots and figures follow less often, and wait while somebody types.
Nothing here waits for the engine, and the engine knows nothing of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.errors import RunError
from engine.text import safe_text
from tui.bridge import ALL_TOPICS, Bridge
from tui.screens.panes import in_sight
from tui.widgets.cells import CellWidget
from tui.widgets.plan import show_plan
from tui.widgets.samples import SamplesPane
from tui.widgets.status import StatusLine
from tui.widgets.training import SLOW, TrainingPane

if TYPE_CHECKING:
    from tui.error_text import Told
    from tui.screens.workbench import Workbench

TYPING_S = 0.3
"""Plots wait this long after a key."""

MANY_PICTURES = 10_000
"""From so many on it takes the screen's thread long to go through all of them."""

EARLY_S = 0.1
"""Polls do not come to the millisecond: a redraw may be this much early, rather than a whole poll late."""


class Feed:
    """Keeps the workbench up to date; made once its panes are there."""

    def __init__(self, screen: Workbench) -> None:
        self.screen = screen
        self.place = screen.workplace
        self.app = screen.app
        self.training = screen.query_one(TrainingPane)
        self._samples = screen.query_one(SamplesPane)
        self._status = screen.query_one(StatusLine)
        self._topics: set[str] = set()
        self._drawn_at = 0.0
        self._told_end = False
        self._shown: Bridge | None = None
        self._plan_seen: object = None
        self._disk_seen: object = None

    def poll(self) -> None:
        """Take what is new from the engine and show it where it matters."""
        bridge = self.place.bridge
        if bridge is not self._shown:
            self._another_run(bridge)
        if bridge is not None:
            self._topics |= bridge.poll()
        now = time.monotonic()
        slow = now - self._drawn_at > self.app.redraw_s - EARLY_S and now - self.app.typed_at > TYPING_S
        self._show(slow)
        if slow:
            self._drawn_at = now
        self._set_phase()
        self._tell_end()
        if self.place.view.disk is not self._disk_seen:
            self._disk_seen = self.place.view.disk
            self.screen.refresh_bindings()  # files that could go, or none any more
        title = self.place.config.name if self.place.config is not None else self.place.folder.name
        self._status.tell(
            safe_text(title, 60), self.place.machine, self.place.config is not None, self.place.elsewhere
        )
        self.place.session.run = str(self.screen.run_root() or "")

    def show_all(self) -> None:
        """Hand the state to every widget in sight, after a change of layout."""
        for widget in self.screen.query(CellWidget):
            if widget.TOPICS and in_sight(widget):
                widget.show(self.place.view)

    def _another_run(self, bridge: Bridge | None) -> None:
        """The workplace shows another run than before."""
        self._shown = bridge
        self._told_end = bridge is not None and not self.place.live
        self._topics |= ALL_TOPICS
        self._samples.forget()

    def _show(self, slow: bool) -> None:
        """Hand the state to widgets in sight whose topics changed."""
        if not self._topics:
            return
        for widget in self.screen.query(CellWidget):
            late = isinstance(widget, SLOW) and not slow
            if not late and widget.TOPICS & self._topics and in_sight(widget):
                widget.show(self.place.view)
        if slow:
            self._topics.clear()

    def _set_phase(self) -> None:
        """Plan, stages or curve, as the run stands."""
        view, place = self.place.view, self.place
        known = place.run is not None and (view.seq > 0 or place.live)
        phase = "idle" if not known else "training" if len(view.courses.step) or not view.live else "preparing"
        if self.training.set_phase(phase, ended=known and not view.live):
            self.screen.show_smoothing()
            self.screen.refresh_bindings()
            self.screen.call_after_refresh(self.show_all)
        if phase == "idle":
            catalog = place.catalog
            # Of a very large dataset the plan is counted when it has been read, not at each of a thousand pieces.
            counted = len(catalog.rows) < MANY_PICTURES or catalog.state != "scanning"
            seen = (id(place.config), catalog.version if counted else len(catalog.rows))
            if seen != self._plan_seen:
                self._plan_seen = seen
                show_plan(self.training, place)

    def _tell_end(self) -> None:
        """Open a dialog once for a failure; a run that became live again may fail again."""
        view, run = self.place.view, self.place.run
        if run is None or self.place.pending is not None:
            return
        if view.live and run.alive:
            self._told_end = False
        elif not self._told_end and (not view.live or run.events.seq == view.seq):
            self._told_end = True
            self.screen.refresh_bindings()
            if view.failure is not None:
                self._tell(view.failure)
            elif view.live:
                gone = "Its thread is gone; the run cannot go on."
                self._tell(RunError("The engine ended without a word", gone, "Resume the run."))

    def _tell(self, error: Told) -> None:
        run = self.place.run
        log = str(run.folder.log) if run is not None and run.folder is not None else ""
        self.app.show_error(error, log, "The run failed")
