"""Two runs side by side: their losses in one plot, and the settings in which they differ.

The plot is plotext's: it is drawn once a size, in a thread, so its cost does not matter here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.color import Color, ColorParseError
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from engine.config_file import load_config
from engine.errors import EngineError
from engine.files import RunFolder
from engine.text import safe_text
from tui.aside import aside
from tui.keys.key import bindings
from tui.keys.runs import COMPARE_KEYS
from tui.report import curves_plot
from tui.run_shelf import RunCard
from tui.safe import safe
from tui.units import duration
from tui.widgets.cells import glyphs_of
from tui.widgets.keyline import KeyLine

NAME = 24
"""Cells of a run's name in the table."""


class CompareScreen(Screen[None]):
    """The comparison of two runs."""

    CSS_PATH = "runs.tcss"
    BINDINGS = bindings(COMPARE_KEYS)
    AUTO_FOCUS = "#differences"

    def __init__(self, first: RunCard, second: RunCard) -> None:
        super().__init__()
        self.cards = (first, second)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compare")

    def compose(self) -> ComposeResult:
        """Plot above, differences below."""
        yield Static(id="head")
        yield Static(id="curves")
        with VerticalScroll(id="differences", classes="pane"):
            yield Static()
        yield KeyLine()

    def on_mount(self) -> None:
        """Name the runs and read their settings."""
        names = [safe_text(card.summary.name, 60) for card in self.cards]
        self.query_one("#head", Static).update(safe(f"Smoothed loss of {names[0]} and {names[1]}"))
        self.query_one("#differences").border_title = safe("What differs")
        self.tell_differences()
        self.app.theme_changed_signal.subscribe(self, lambda _: self.draw())

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self.draw)

    @work(exclusive=True, group="draw")
    async def draw(self) -> None:
        """Draw the curves."""
        place = self.query_one("#curves", Static)
        width, height = place.content_size
        if width < 20 or height < 6:
            place.update(Content("too small for a plot"))
            return
        drawn = [(number, card) for number, card in enumerate(self.cards) if card.losses]
        curves = {_label(card, number): (card.steps, card.losses) for number, card in drawn}
        if not curves:
            place.update(Content("neither run has made a step"))
            return
        unicode = not glyphs_of(self.app).ascii
        text = await aside(self, self._pool, curves_plot, curves, width, height, unicode, self._colors())
        place.update(Content.from_rich_text(Text.from_ansi(text)))

    def _colors(self) -> list[tuple[int, int, int]]:
        """Of the two curves, from the theme; none where it leaves its colours to the terminal."""
        variables = self.app.theme_variables
        try:
            found = [Color.parse(variables[name]) for name in ("accent", "foreground")]
        except (ColorParseError, KeyError):
            return []
        return [] if any(color.ansi is not None for color in found) else [color.rgb for color in found]

    @work(exclusive=True, group="differences")
    async def tell_differences(self) -> None:
        """List results and settings that differ."""
        rows = await aside(self, self._pool, differences, *self.cards)
        self.query_one("#differences Static", Static).update(_table(rows))

    def action_back(self) -> None:
        """Back to the runs."""
        self.dismiss()


Row = tuple[str, str, str]


def differences(first: RunCard, second: RunCard) -> list[Row]:
    """Results of both runs, then every setting in which they differ. Reads the disk."""
    rows: list[Row] = [("", first.summary.name, second.summary.name)]
    for label, told in _RESULTS.items():
        rows.append((label, told(first), told(second)))
    settings = [_settings(card) for card in (first, second)]
    for key in dict.fromkeys((*settings[0], *settings[1])):
        values = [str(table.get(key, "-")) for table in settings]
        if values[0] != values[1] and key != "name":
            rows.append((key, *values))  # type: ignore[arg-type]
    if len(rows) == 1 + len(_RESULTS):
        rows.append(("settings", "no setting differs", ""))
    return rows


_RESULTS: dict[str, Any] = {
    "state": lambda card: card.summary.state,
    "steps": lambda card: f"{card.summary.step} of {card.summary.steps}",
    "last loss": lambda card: f"{card.losses[-1]:.4f}" if card.losses else "-",
    "lowest loss": lambda card: f"{min(card.losses):.4f}" if card.losses else "-",
    "time": lambda card: duration(card.summary.elapsed_s),
}


def _settings(card: RunCard) -> dict[str, Any]:
    """A run's settings by dotted key."""
    try:
        return _flat(load_config(RunFolder(card.folder).config).model_dump(mode="json"))
    except EngineError as err:
        return {"settings": err.title}


def _flat(table: Any, key: str = "") -> dict[str, Any]:
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else None
    if items is None:
        return {key: table}
    found: dict[str, Any] = {}
    for name, value in items:
        found |= _flat(value, f"{key}.{name}" if key else str(name))
    return found


def _label(card: RunCard, number: int) -> str:
    """A name for the legend; two runs of one name are numbered."""
    return f"{number + 1} {safe_text(card.summary.name, NAME)}"


def _table(rows: list[Row]) -> Content:
    """Three columns as lines."""
    width = max(len(row[0]) for row in rows) + 2
    lines = []
    for number, (label, first, second) in enumerate(rows):
        cells = [safe_text(value, 200) for value in (first, second)]
        cells = [cell if len(cell) <= NAME + 8 else "..." + cell[-(NAME + 5) :] for cell in cells]
        style = "bold" if not number else ""
        line = (f"{cells[0]:<{NAME + 10}}{cells[1]}", style)
        lines.append(Content.assemble((f"{label:<{width}}", "$foreground-muted"), line))
    return Content("\n").join(lines)
