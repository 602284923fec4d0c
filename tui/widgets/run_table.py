"""The table of runs and the curve of the one under the cursor: own cells, only what is in sight is drawn."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip

from engine.text import safe_text
from tui.run_list import RunSummary
from tui.run_shelf import RunCard
from tui.units import duration
from tui.view import LIVE_STATES
from tui.widgets.cells import CellWidget, Run, strip_of
from tui.widgets.plot import Chart, Curve, Plot

STYLES = {"finished": "good", "failed": "bad", "unreadable": "bad", "stopped": "held", "interrupted": "held"}
"""Component class of a state; live ones have their own."""


MARGIN, EPOCH, LOSS, TIME, BEGUN = 3, 7, 9, 10, 18
"""Cells of the columns whose contents are always about as long."""

LEAST_NAME = 24
"""Cells of a long name before times are given up for it."""


class Widths(NamedTuple):
    """Cells of the other columns, and whether there is room for times."""

    state: int
    name: int
    step: int
    times: bool


def _steps(run: RunSummary) -> str:
    return f"{run.step}/{run.steps}" if run.steps else str(run.step)


class RunTable(CellWidget, can_focus=True):
    """Runs as lines under a heading; the cursor has a sign of its own, so that it shows without colour too."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "runs--head", "runs--cursor",
        "runs--dim", "runs--mark", "runs--live", "runs--good", "runs--held", "runs--bad",
    }  # fmt: skip

    @dataclass
    class Moved(Message):
        """The cursor stands on another run; None where there is none."""

        card: RunCard | None

    @dataclass
    class Opened(Message):
        """A run was clicked twice."""

        card: RunCard

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes="pane")
        self.cards: Sequence[RunCard] = ()
        self.marked: frozenset[str] = frozenset()
        self.cursor = 0
        self.empty = ""
        self._top = 0
        self._version = 0

    @property
    def card(self) -> RunCard | None:
        """The run under the cursor."""
        return self.cards[self.cursor] if self.cursor < len(self.cards) else None

    def take(self, cards: Sequence[RunCard], marked: frozenset[str], empty: str) -> None:
        """Show these runs; the cursor stays on the run it is on. ``empty`` says why there are none."""
        here = self.card
        self.cards, self.marked, self.empty = cards, marked, empty
        self._version += 1
        names = [card.summary.folder for card in cards]
        if here is not None and here.summary.folder in names:
            self.cursor = names.index(here.summary.folder)
        self.cursor = max(0, min(self.cursor, len(cards) - 1))
        self.refresh()
        if self.card is not here:
            self.post_message(self.Moved(self.card))

    def go(self, row: int) -> None:
        """Move the cursor to a row, as far as there is one."""
        row = max(0, min(row, len(self.cards) - 1))
        if row != self.cursor:
            self.cursor = row
            self.refresh()
            self.post_message(self.Moved(self.card))

    @property
    def page(self) -> int:
        """Lines that a page has."""
        return max(1, self.size.height - 2)

    def on_click(self, event: Click) -> None:
        """A click goes to a run, a double click opens it."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y < 1 or self._top + offset.y - 1 >= len(self.cards):
            return
        self.go(self._top + offset.y - 1)
        if event.chain == 2 and self.card is not None:
            self.post_message(self.Opened(self.card))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The wheel moves the cursor."""
        self.go(self.cursor + 1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The wheel moves the cursor."""
        self.go(self.cursor - 1)

    def content_key(self) -> Hashable:
        """Runs, marks, cursor."""
        return self._version, self.cursor, self.has_focus

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading and the runs around the cursor."""
        blank, head = self.rich_style, self.style_of("runs--head")
        if not self.cards:
            return [strip_of([], width, blank), strip_of([("  " + self.empty, blank)], width, blank)]
        rows = height - 1
        self._top = max(0, min(self._top, self.cursor, len(self.cards) - rows), self.cursor - rows + 1)
        at = self._widths(width)
        heading = f"   {'state':<{at.state}}{'run':<{at.name}}{'epoch':>{EPOCH}}{'step':>{at.step}}{'loss':>{LOSS}}"
        strips = [strip_of([(heading + (f"{'time':>{TIME}}  begun" if at.times else ""), head)], width, head)]
        for row in range(self._top, min(len(self.cards), self._top + rows)):
            strips.append(self._line(row, at, width))
        return strips

    def _widths(self, width: int) -> Widths:
        """No column is wider than it needs to be: what belongs together stays together."""
        runs = [card.summary for card in self.cards]
        state = max(len("state"), *(len(run.state) + 2 for run in runs)) + 2
        step = max(len("step"), *(len(_steps(run)) for run in runs)) + 2
        longest = max(len("run"), *(cell_len(safe_text(run.name, 200)) for run in runs)) + 1
        room = width - MARGIN - state - EPOCH - step - LOSS - 1
        times = room - TIME - BEGUN >= min(longest, LEAST_NAME)
        return Widths(state, max(8, min(longest, room - (TIME + BEGUN if times else 0))), step, times)

    def _line(self, row: int, at: Widths, width: int) -> Strip:
        card = self.cards[row]
        run, here = card.summary, row == self.cursor
        blank = self.style_of("runs--cursor") if here else self.rich_style
        dim, mark = (self._over(self.style_of(name), blank) for name in ("runs--dim", "runs--mark"))
        live = run.state in LIVE_STATES
        state = self._over(self.style_of(f"runs--{'live' if live else STYLES.get(run.state, 'dim')}"), blank)
        sign = self.glyphs.states.get(run.state, self.glyphs.warning)
        name = safe_text(run.name, 200)
        if cell_len(name) >= at.name:
            name = set_cell_size(name, at.name - 2) + self.glyphs.ellipsis[:1]
        name = set_cell_size(name, at.name)
        loss = "-" if run.loss is None else f"{run.loss:.4f}"
        runs: list[Run] = [
            (">" if here else " ", mark), ("+" if run.folder in self.marked else " ", mark), (" ", blank),
            (f"{sign} {run.state:<{at.state - 2}}", state), (name, blank),
            (f"{run.epoch:>{EPOCH}}{_steps(run):>{at.step}}", dim), (f"{loss:>{LOSS}}", blank),
        ]  # fmt: skip
        if at.times:
            begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started_at)) if run.started_at else "-"
            runs.append((f"{duration(run.elapsed_s):>{TIME}}  {begun}", dim))
        return strip_of(runs, width, blank)

    @staticmethod
    def _over(style: Style, ground: Style) -> Style:
        """A text style on the cursor line's ground."""
        return ground + Style(color=style.color, bold=style.bold, dim=style.dim, italic=style.italic)


class CurvePlot(Plot):
    """The loss of one run from its card."""

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._card: RunCard | None = None

    def take(self, card: RunCard | None) -> None:
        """Show this run's loss."""
        self._card = card
        self.refresh()

    def content_key(self) -> Hashable:
        """The run, and when it was read."""
        return (self._card.summary.folder, self._card.key) if self._card else None

    def chart(self) -> Chart:
        """One line over the steps."""
        card = self._card
        if card is None or len(card.steps) < 2:
            return Chart((), (0, 1), (0, 1), empty="no steps yet" if card else "")
        import numpy as np

        from tui.widgets.braille import robust_limits

        x, y = np.array(card.steps), np.array(card.losses)
        x_range = (0.0, float(max(card.summary.step, 8)))
        curve = Curve(x, y, "plot--line")
        return Chart((curve,), x_range, robust_limits(y), left="0", right=str(card.summary.step))
