"""The run screen: loss and figures at the left, samples at the right, the log below; one pane at a time when small.

The screen polls its bridge four times a second and hands the new state to the widgets that are in sight and
concerned; plots follow at half that rate. Nothing here waits for the engine, and the engine knows nothing of it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Footer, Static

from engine.events import RunFailed
from tui.bridge import Bridge
from tui.keymap import RUN_KEYS, bindings
from tui.safe import safe
from tui.screens.dialogs import ErrorDialog
from tui.screens.panes import PANES, Pane, PaneScreen, in_sight
from tui.view import SMOOTHINGS
from tui.widgets.cells import CellWidget
from tui.widgets.figures import Figures
from tui.widgets.log import LogPane
from tui.widgets.plot import WINDOWS, LossPlot, MemoryPlot, Plot, RatePlot
from tui.widgets.samples import SamplesPane
from tui.widgets.stages import Result, Stages
from tui.widgets.status import ProgressLine, StatusLine

POLL_S = 0.25
SLOW = (Plot, Figures)
"""Widgets that follow at every second poll only."""

SHORT_RUN = 400
"""Steps below which the strong average would lag behind for most of the run."""

WEAKER = 1
"""Index of the weaker average in ``SMOOTHINGS``."""


class RunScreen(PaneScreen):
    """One run, live or over."""

    BINDINGS = bindings(RUN_KEYS)
    AUTO_FOCUS = "#loss"

    def __init__(self, bridge: Bridge, pool: ThreadPoolExecutor) -> None:
        super().__init__(bridge)
        self._pool = pool
        self._topics: set[str] = set()
        self._ticks = 0
        self._started = False
        self._told_end = False
        self.smoothing: int | None = 0
        self._smoothing_chosen = False
        self.window = 0

    def compose(self) -> ComposeResult:
        """Header lines, four panes, footer."""
        yield StatusLine()
        yield ProgressLine()
        with Container(id="panes"):
            with Horizontal(id="upper"):
                with Vertical(id="left"):
                    with Pane(id="loss", classes="pane"):
                        yield Result()
                        yield Stages()
                        yield LossPlot()
                    with Pane(id="figures", classes="pane"):
                        with Vertical():
                            yield Static(safe("learning rate"), classes="caption")
                            yield RatePlot()
                        with Vertical(id="memory-plot-box"):
                            yield Static(safe("memory, GiB"), classes="caption")
                            yield MemoryPlot()
                        yield Figures()
                yield SamplesPane(self._pool, self._run_root, id="samples")
            yield LogPane(id="log")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Name the panes, lay out, and start the run once the first frame is painted."""
        for number, (name, title) in enumerate(
            zip(PANES, ("Loss", "Figures", "Samples", "Log"), strict=True), start=1
        ):
            pane = self.query_one(f"#{name}")
            pane.border_title = safe(f"{number} {title}")
            pane.add_class("pane")
        self._lay_out(self.app.size.width, self.app.size.height)
        self._title_loss()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        if not self.training.alive and self.training.events.seq == 0 and not self._told_to_leave:
            self.training.start()
        self._started = True
        self.set_interval(POLL_S, self.poll)
        self.poll()

    def poll(self) -> None:
        """Take what is new from the engine and show it where it matters."""
        self._topics |= self.bridge.poll()
        self._take_state()
        self._ticks += 1
        self._show(slow=self._ticks % 2 == 0)
        view = self.run_view
        self._set_phase(training=bool(len(view.courses.step)) or not view.live, ended=not view.live)
        self._tell_end()
        if self._told_to_leave or (self.leave_when_ended and not self.training.alive):
            self.app.exit()

    def _tell_end(self) -> None:
        """Open a dialog once for a failure; a run that became live again may fail again."""
        view = self.run_view
        if view.live and self.training.alive:
            self._told_end = False
        elif not view.live and not self._told_end:
            self._told_end = True
            if view.failure is not None:
                self._tell_failure(view.failure)
        elif view.live and self._started and self.training.events.seq == view.seq:
            self._engine_vanished()

    def _set_phase(self, training: bool, ended: bool) -> None:
        """Show in the first pane what belongs to this part of the run: stages, plot, result."""
        if training != self.has_class("-training") or ended != self.has_class("-ended"):
            self.set_class(training, "-training")
            self.set_class(ended, "-ended")
            self.refresh_bindings()
            if self._smoothing_chosen:
                self._title_loss()
            else:
                self._smooth(WEAKER if 0 < self.run_view.steps < SHORT_RUN else 0)
            self.call_after_refresh(self.show_all)

    @property
    def _told_to_leave(self) -> bool:
        """Whether a signal asked for the end."""
        return bool(getattr(self.app, "leave_now", False))

    def _show(self, slow: bool) -> None:
        """Hand the state to widgets in sight whose topics changed."""
        if not self._topics:
            return
        for widget in self.query(CellWidget):
            late = isinstance(widget, SLOW) and not slow
            if not late and widget.TOPICS & self._topics and in_sight(widget):
                widget.show(self.run_view)
        if slow:
            self._topics.clear()

    def _run_root(self) -> Path | None:
        folder = self.training.folder
        return folder.root if folder is not None else None

    def _tell_failure(self, failure: RunFailed) -> None:
        folder = self.training.folder
        self.app.push_screen(ErrorDialog(failure, str(folder.log) if folder is not None else ""))

    def _engine_vanished(self) -> None:
        if not self._told_end:
            self._told_end = True
            title = "The engine ended without a word"
            self._tell_failure(RunFailed(title, "Its thread is gone; the run cannot go on.", "Resume the run.", ""))

    def action_smoothing(self) -> None:
        """The next smoothing of the loss: strong, weaker, stronger, none."""
        order: list[int | None] = [*range(len(SMOOTHINGS)), None]
        self._smoothing_chosen = True
        self._smooth(order[(order.index(self.smoothing) + 1) % len(order)])

    def _smooth(self, smoothing: int | None) -> None:
        self.smoothing = smoothing
        plot = self.query_one(LossPlot)
        plot.smoothing = self.smoothing
        plot.refresh()
        self._title_loss()

    def action_range(self, by: int) -> None:
        """Halve or double the visible range of all plots."""
        self.window = max(0, min(WINDOWS, self.window + by))
        for plot in self.query(Plot):
            plot.set_window(self.window)
        self._title_loss()

    def _title_loss(self) -> None:
        average = "raw" if self.smoothing is None else f"smoothed {SMOOTHINGS[self.smoothing]}"
        part = f", last 1/{2**self.window}" if self.window else ""
        pane, plotted = self.query_one("#loss"), self.has_class("-training")
        pane.border_title = safe(f"1 Loss  {average}{part}" if plotted else "1 Loss")
        pane.border_subtitle = safe("dim: single steps, bright: the trend" if plotted else "")
