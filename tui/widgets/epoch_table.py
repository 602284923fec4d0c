"""The table of epochs: verdict, losses, stars, wins and file of each, only what is in sight drawn."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip

from engine.text import safe_text
from tui.epochs import EpochRow
from tui.epochs_shown import Shown, figures
from tui.widgets.cells import CellWidget, Run, strip_of

EPOCH, VERDICT, LOSS, GAP, DRIFT, STARS, WINS = 6, 10, 9, 9, 8, 8, 6
FILE, LEAST_FILE = 12, 5
"""Cells that a file's name needs to be worth showing, and those of a word in its place."""

VERDICT_STYLES = {"in range": "good", "under": "held", "over": "bad", "unclear": "dim"}


@dataclass
class EpochChosen(Message):
    """The user pointed at an epoch, or asked for the next rows."""

    epoch: int
    by: int = 0
    """Rows to go instead, when not 0."""
    prompt: int = -1
    """The line of the grid that was pointed at; -1 where none was."""


class EpochTable(CellWidget, can_focus=True):
    """Epochs as lines under a heading; the cursor has a sign of its own."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "epochs--head", "epochs--cursor", "epochs--dim", "epochs--mark", "epochs--good", "epochs--held",
        "epochs--bad",
    }  # fmt: skip

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes="pane")
        self.shown = Shown()
        self.marked = -1
        self._top = 0

    def take(self, shown: Shown, marked: int) -> None:
        """Show this; ``marked`` is the epoch that others are compared with."""
        self.shown, self.marked = shown, marked
        self.refresh()

    def content_key(self) -> Hashable:
        """What is shown, and where the cursor is."""
        return self.shown.version, self.shown.at, self.marked, self.has_focus

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading and the epochs around the cursor."""
        blank, head = self.rich_style, self.style_of("epochs--head")
        rows = self.shown.rows
        if not rows:
            empty = "Nothing of this run yet: epochs appear as they end" if self.shown.version else ""
            return [strip_of([], width, blank), strip_of([("  " + empty, blank)], width, blank)]
        room = max(1, height - 1)
        at = self.shown.at
        self._top = max(0, min(self._top, at, len(rows) - room), at - room + 1)
        strips = [strip_of([(self._heading(width), head)], width, head)]
        return strips + [
            self._line(row, number == at, width)
            for number, row in enumerate(rows[self._top : self._top + room], self._top)
        ]

    def _columns(self, width: int) -> tuple[bool, int]:
        """Whether there is room for drift and wins, and cells for the file's name."""
        least = 4 + EPOCH + VERDICT + LOSS + GAP + STARS + 2
        more = width >= least + DRIFT + WINS + LEAST_FILE
        return more, width - least - (DRIFT + WINS if more else 0)

    def _heading(self, width: int) -> str:
        more, _ = self._columns(width)
        drift, wins = (f"{'drift':>{DRIFT}}", f"{'won':>{WINS}}") if more else ("", "")
        left = f"  {'epoch':>{EPOCH}}  {'verdict':<{VERDICT}}{'held-out':>{LOSS}}{'gap':>{GAP}}"
        return f"{left}{drift}{'stars':>{STARS - 1}} {wins}  file"

    def _line(self, row: EpochRow, here: bool, width: int) -> Strip:
        more, room = self._columns(width)
        blank = self.style_of("epochs--cursor") if here else self.rich_style
        dim, mark = (_over(self.style_of(name), blank) for name in ("epochs--dim", "epochs--mark"))
        verdict = _over(self.style_of(f"epochs--{VERDICT_STYLES.get(row.verdict, 'dim')}"), blank)
        held, gap, drift = figures(row)
        judged = self.shown.judged
        sign = "T" if row.epoch and judged.chosen == row.epoch else "B" if self._is_best(row) else " "
        name = "base" if row.epoch == 0 else str(row.epoch)
        runs: list[Run] = [
            (">" if here else "+" if row.epoch == self.marked else " ", mark),
            (sign, mark),
            (f"{name:>{EPOCH}}  ", blank),
            (f"{row.verdict:<{VERDICT}}", verdict),
            (f"{_figure(held, '.4f'):>{LOSS}}", blank),
            (f"{_figure(gap, '+.4f'):>{GAP}}", dim),
        ]
        if more:
            runs.append((f"{'-' if drift is None else f'{100 * drift:.1f} %':>{DRIFT}}", dim))
        # An n for a note: what it says stands above.
        runs.append((f"{'*' * row.opinion.stars:>{STARS - 1}}{'n' if row.opinion.note else ' '}", mark))
        if more:
            wins = f"{row.opinion.wins}/{row.opinion.shown}" if row.opinion.shown else "-"
            runs.append((f"{wins:>{WINS}}", dim))
        runs.append((f"  {self._file(row, room)}", blank if self.shown.files_of(row) else dim))
        return strip_of(runs, width, blank)

    def _is_best(self, row: EpochRow) -> bool:
        return bool(self.shown.advice.best) and self.shown.advice.best == row.epoch

    def _file(self, row: EpochRow, room: int) -> str:
        there = self.shown.files_of(row)
        if not there:
            return "gone" if row.files else "-"
        if room < FILE:
            return "saved"
        name = safe_text(there[0].name.removesuffix(".safetensors"), 200)
        return name if cell_len(name) <= room else set_cell_size(name, room - 1) + self.glyphs.ellipsis[:1]

    def on_click(self, event: Click) -> None:
        """Go to the epoch."""
        offset = event.get_content_offset(self)
        row = self._top + offset.y - 1 if offset is not None and offset.y else -1
        if 0 <= row < len(self.shown.rows):
            self.post_message(EpochChosen(self.shown.rows[row].epoch))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The wheel moves the cursor."""
        self.post_message(EpochChosen(0, by=1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The wheel moves the cursor."""
        self.post_message(EpochChosen(0, by=-1))


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _over(style: Style, ground: Style) -> Style:
    """A text style on the cursor line's ground."""
    return ground + Style(color=style.color, bold=style.bold, dim=style.dim, italic=style.italic)
