"""The training pane: the plan before a run, its stages while it gets ready, the curve and figures while it trains.

One large pane of several small widgets; which of them are shown is a class on the pane (idle, preparing, training,
ended), so that a change of phase is a matter of style. Zoomed, the plots of learning rate and memory join the curve.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.strip import Strip
from textual.widgets import Static

from tui.reading import Reading, reading
from tui.safe import safe
from tui.view import SMOOTHINGS, RunView
from tui.widgets.cells import CellWidget, strip_of, wrap
from tui.widgets.figures import Figures
from tui.widgets.plan import Plan
from tui.widgets.plot import LossPlot, MemoryCaption, MemoryPlot, Plot, RatePlot
from tui.widgets.stages import Result, Stages
from tui.widgets.vitals import Vitals

PHASES = ("idle", "preparing", "training")


class ReadingLine(CellWidget):
    """One or two lines beside the curve on how to read it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"reading--good", "reading--flat", "reading--bad", "reading--plain"}
    TOPICS = frozenset({"step", "state"})

    _read: tuple[RunView | None, Hashable, Reading] = (None, None, Reading(""))

    def content_key(self) -> Hashable:
        """The sentence."""
        return self._told()

    def _told(self) -> Reading:
        """The sentence; looked for once a step, since that takes as long as all else that is drawn."""
        view = self.view
        seen = (len(view.courses.loss), view.done, view.failure, view.steps)
        if view is not self._read[0] or seen != self._read[1]:
            self._read = view, seen, reading(view)
        return self._read[2]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Two lines: a height that changed with the sentence would make the curve jump; one where room is short."""
        return 2 if width < 110 and not self.brief else 1

    @property
    def brief(self) -> bool:
        """Whether the outcome above leaves room for one line only."""
        return not self.view.live and not self.screen.has_class("-wide")

    def paint(self, width: int, height: int) -> list[Strip]:
        """The sign, then the sentence."""
        told = self._told()
        glyphs = self.glyphs
        sign = {"good": glyphs.done, "flat": glyphs.rail, "bad": glyphs.warning}.get(told.sign, glyphs.dot)
        style = self.style_of(f"reading--{told.sign or 'plain'}")
        text = told.text
        if self.brief and len(text) > width - 2:
            text = text.split(". ")[0] + "."
        rows = wrap(text, max(8, width - 2)) if text else []
        return [
            strip_of([(f"{' ' if number else sign} ", style), (row, style)], width, self.rich_style)
            for number, row in enumerate(rows[:height])
        ]


SLOW = (Plot, Figures, ReadingLine)
"""Widgets that follow at every second poll only."""


class TrainingPane(Vertical, can_focus=True):
    """All that shows how a run does."""

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.smoothing: int | None = 0
        self.window = 0

    def compose(self) -> ComposeResult:
        """What the phases need."""
        yield Plan()
        yield Result()
        yield Stages()
        yield LossPlot()
        yield ReadingLine()
        yield Vitals()
        with Horizontal(classes="lower"):
            with Vertical():
                yield Static(safe("learning rate"), classes="caption")
                yield RatePlot()
            with Vertical(classes="memory"):
                yield MemoryCaption()
                yield MemoryPlot()
            yield Figures()

    def on_mount(self) -> None:
        """Name the pane."""
        self._title()

    def set_phase(self, phase: str, ended: bool) -> bool:
        """Show what belongs to a phase; True when it is another one than before."""
        wanted = {f"-{phase}", *(["-ended"] if ended else [])}
        had = {name for name in self.classes if name in {"-ended", *(f"-{name}" for name in PHASES)}}
        if wanted == had:
            return False
        self.remove_class(*had)
        self.add_class(*wanted)
        self._title()
        return True

    def smooth(self, smoothing: int | None) -> None:
        """Show another average of the loss, by its index; None shows single steps alone."""
        self.smoothing = smoothing
        plot = self.query_one(LossPlot)
        plot.smoothing = smoothing
        plot.refresh()
        self._title()

    def set_window(self, window: int) -> None:
        """Show the last 1/2**window of all courses."""
        self.window = window
        for plot in self.query(Plot):
            plot.set_window(window)
        self._title()

    def _title(self) -> None:
        """Name what the curve shows in the frame."""
        average = "raw" if self.smoothing is None else f"smoothed {SMOOTHINGS[self.smoothing]}"
        part = f", last 1/{2**self.window}" if self.window else ""
        plotted = self.has_class("-training")
        self.border_title = safe(f"3 Training  loss, {average}{part}" if plotted else "3 Training")
        self.border_subtitle = safe("dim: single steps, bright: the trend" if plotted else "")
