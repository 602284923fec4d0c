"""Runs side by side: their curves in one plot, how they came out, and the settings in which they differ.

The plot is plotext's: it is drawn once a size, in a thread, so its cost does not matter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.color import Color, ColorParseError
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from tui.aside import aside
from tui.compare_text import FIGURES, row_of
from tui.comparing import Comparison, shown
from tui.keys.key import bindings
from tui.keys.runs import COMPARE_KEYS
from tui.report import curves_plot
from tui.run_shelf import read_comparison
from tui.safe import safe
from tui.units import duration
from tui.widgets.cells import glyphs_of
from tui.widgets.keyline import KeyLine

NAME = 24
"""Cells of a run's name in the legend."""

WIDEST, NARROWEST = 34, 7
"""Cells of a column."""

CURVES = {
    "by_epoch": ("Held-out loss over epochs", "epoch"),
    "by_step": ("Held-out loss over steps", "step"),
    "losses": ("Smoothed training loss", "step"),
}
"""What can be shown: the attribute of a run's side, in words, and what its positions count."""

COLORS = ("accent", "foreground", "success", "warning", "error", "secondary")

Row = tuple[str, ...]


class CompareScreen(Screen[None]):
    """The comparison of runs."""

    CSS_PATH = "runs.tcss"
    BINDINGS = bindings(COMPARE_KEYS)
    AUTO_FOCUS = "#differences"

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self.found: Comparison | None = None
        self.shown = ""
        """Which of :data:`CURVES`; empty before the runs are read."""
        self._folders = list(folders)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compare")

    def compose(self) -> ComposeResult:
        """Plot above, differences below."""
        yield Static(id="head")
        yield Static(id="curves")
        with VerticalScroll(id="differences", classes="pane"):
            yield Static()
        yield KeyLine()

    def on_mount(self) -> None:
        """Read the runs."""
        names = ", ".join(shown(folder.name, NAME) for folder in self._folders)
        self.query_one("#head", Static).update(safe(names))
        self.query_one("#differences").border_title = safe("What differs")
        self.read()
        self.app.theme_changed_signal.subscribe(self, lambda _: self.draw())

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self.draw)

    @work(exclusive=True, group="read")
    async def read(self) -> None:
        """Read the runs and compare them."""
        self.found = await aside(self, self._pool, read_comparison, self._folders)
        self.shown = self._drawable()[0]
        self.draw()

    def action_curves(self) -> None:
        """Show the next curves there are."""
        there = self._drawable()
        if self.shown in there:
            self.shown = there[(there.index(self.shown) + 1) % len(there)]
            self.draw()

    def action_back(self) -> None:
        """Back to the runs."""
        self.dismiss()

    def _drawable(self) -> list[str]:
        """The curves that some run has, the training loss at least."""
        runs = self.found.runs if self.found is not None else ()
        return [name for name in CURVES if name == "losses" or any(len(getattr(run, name)[0]) > 1 for run in runs)]

    @work(exclusive=True, group="draw")
    async def draw(self) -> None:
        """Draw the curves, and the table for this width."""
        if self.found is None:
            return
        title, axis = CURVES[self.shown]
        names = ", ".join(shown(run.name, NAME) for run in self.found.runs)
        self.query_one("#head", Static).update(safe(f"{title}: {names}"))
        table = self.query_one("#differences Static", Static)
        table.update(_table(rows_of(self.found), self.found.apart, table.content_size.width))
        place = self.query_one("#curves", Static)
        width, height = place.content_size
        if width < 20 or height < 6:
            place.update(Content("too small for a plot"))
            return
        drawn = [(number, run, getattr(run, self.shown)) for number, run in enumerate(self.found.runs, start=1)]
        curves = {f"{number} {shown(run.name, NAME)}": points for number, run, points in drawn if len(points[0])}
        if not curves:
            place.update(Content("no run has made a step"))
            return
        unicode = not glyphs_of(self.app).ascii
        colors = [color for color, (*_, points) in zip(self._colors(), drawn, strict=False) if len(points[0])]
        text = await aside(self, self._pool, curves_plot, curves, width, height, unicode, colors, axis)
        place.update(Content.from_rich_text(Text.from_ansi(text)))

    def _colors(self) -> list[tuple[int, int, int]]:
        """Of the curves, from the theme; none where it leaves its colours to the terminal."""
        variables = self.app.theme_variables
        try:
            found = [Color.parse(variables[name]) for name in COLORS]
        except (ColorParseError, KeyError):
            return []
        return [] if any(color.ansi is not None for color in found) else [color.rgb for color in found]


def rows_of(found: Comparison) -> list[Row]:
    """Names, then how the runs came out, then every setting in which they differ; what no run has is left out."""
    runs = found.runs
    told = [row_of(run) for run in runs]
    figures: list[Row] = [
        *((label, *(row[at] for row in told)) for at, label in FIGURES.items()),
        ("steps", *(f"{run.step} of {run.steps}" for run in runs)),
        ("time", *(duration(run.elapsed_s) for run in runs)),
        ("last loss", *(f"{run.losses[1][-1]:.4f}" if len(run.losses[1]) else "-" for run in runs)),
    ]
    names: Row = ("", *(shown(run.name) for run in runs))
    rows = [names, *(row for row in figures if any(cell != "-" for cell in row[1:]))]
    rows += [(name, *values) for name, values in found.differing.items()]
    return rows if found.differing else [*rows, ("settings", "no setting differs")]


def _table(rows: list[Row], apart: Sequence[str], width: int) -> Content:
    """Columns as lines; of what is too long the end is shown: it tells paths and the runs of a sweep apart."""
    columns = max(len(row) for row in rows) - 1
    label = min(max(len(row[0]) for row in rows), max(16, width // 4)) + 1
    room = max(NARROWEST, min(WIDEST, (width - label) // max(columns, 1) - 1))
    lines = []
    for number, (name, *cells) in enumerate(rows):
        if not number:  # as in the legend, which has the whole names
            cells = [f"{at} {_fitted(cell, room - 2)}" for at, cell in enumerate(cells, start=1)]
        line = " ".join(_fitted(cell, room) for cell in cells)
        style = "" if number else "bold"
        lines.append(Content.assemble((_fitted(name, label), "$foreground-muted"), (line, style)))
    lines += [Content.styled(f"{line}.", "$text-warning") for line in apart]
    return Content("\n").join(lines)


def _fitted(text: str, room: int) -> str:
    """Exactly ``room`` cells of ``text``, which is safe."""
    if cell_len(text) > room:
        kept = ""
        for character in reversed(text):
            if cell_len(kept) + cell_len(character) > room - 2:
                break
            kept += character
        text = f"..{kept[::-1]}"
    return text + " " * (room - cell_len(text))
