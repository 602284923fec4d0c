"""The dataset's table: draws the rows in sight and nothing else, however many there are.

:class:`DatasetTable` shows rows and a cursor, :class:`DatasetHeader` what the columns are called, and
:class:`DatasetNote` what is wrong with the picture at the cursor. They decide nothing: clicks become messages, and
:mod:`tui.widgets.dataset` does the rest.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.catalog_rows import Row
from tui.widgets.cells import CellWidget, Run, glyphs_of, strip_of, wrap
from tui.widgets.dataset_columns import CURSOR, Column, Limits, cell_of, columns_for, extra_of, label_of

BAR = 1
"""Cells of the table's scroll bar, which is always there."""


class DatasetTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows in columns, with a ``>`` at the cursor's row."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--cursor", "table--odd", "table--dim", "table--star", "table--warning", "table--error",
        "table--edited", "table--hint", "table--mark",
    }  # fmt: skip

    @dataclass
    class Pointed(Message):
        """The mouse pressed a row; ``twice`` for a double click."""

        index: int
        twice: bool

    @dataclass
    class Marked(Message):
        """The mouse marked a row: pressed in its margin or with ctrl, or ``through`` to it with shift."""

        index: int
        through: bool

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.rows: Sequence[Row] = ()
        self.cursor = 0
        self.limits = Limits()
        self.tokens = True
        """Whether there are token counts to show."""
        self.longest = 0
        """Cells of the dataset's longest name."""
        self.extra = ""
        """What is sorted by, where it has a column only then."""
        self.edited: dict[str, int] = {}
        self.hint: Sequence[str] = ()
        """Paragraphs shown in place of rows while there are none."""

    def show(self, rows: Sequence[Row], cursor: int) -> None:
        """Show these rows with the cursor on one of them, which is scrolled into sight if it moved."""
        moved = cursor != self.cursor or len(rows) != len(self.rows)
        self.rows, self.cursor = rows, cursor
        self.virtual_size = Size(self.size.width - BAR, len(rows))
        if moved:
            self.scroll_to_cursor()
        self.refresh()

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is shown of each row."""
        return columns_for(max(0, self.size.width - BAR), self.tokens, self.longest, self.extra)

    def scroll_to_cursor(self) -> None:
        """Bring the cursor's row into sight, moving as little as possible."""
        height = self.size.height
        if not height:
            return
        top = self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, force=True)

    def on_resize(self) -> None:
        """Another height: the cursor stays in sight."""
        self.virtual_size = Size(self.size.width - BAR, len(self.rows))
        self.scroll_to_cursor()

    def on_click(self, event: Click) -> None:
        """Tell which row was pressed."""
        index = event.y + self.scroll_offset.y
        if not 0 <= index < len(self.rows):
            return
        if event.shift or event.ctrl or event.x < CURSOR:
            self.post_message(self.Marked(index, event.shift))
        else:
            self.post_message(self.Pointed(index, event.chain > 1))

    def render_line(self, y: int) -> Strip:
        """One row, or a line of the hint where there are none."""
        width = self.size.width - BAR
        index = y + self.scroll_offset.y
        blank = self.rich_style
        if index < len(self.rows):
            return strip_of(self._runs(index), width, self._ground(index))
        lines = [line for text in self.hint for line in wrap(text, max(8, width - 4))] if not self.rows else []
        if 0 < y <= len(lines):
            style = self.get_component_rich_style("table--hint")
            return strip_of([("  ", blank), (lines[y - 1], style)], width, blank)
        return Strip.blank(width, blank)

    def _ground(self, index: int) -> Style:
        if index == self.cursor:
            return self.get_component_rich_style("table--cursor")
        return self.get_component_rich_style("table--odd") if index % 2 else self.rich_style

    def _runs(self, index: int) -> list[Run]:
        row, ground = self.rows[index], self._ground(index)
        here = index == self.cursor
        glyphs = glyphs_of(self.app)
        edited = self.edited.get(str(row.path), 0) if self.edited else 0
        mark = ground
        if row.marked and not here:
            mark = ground + self.get_component_rich_style("table--mark", partial=True)
        runs: list[Run] = [(">" if here else " ", ground), (glyphs.marked if row.marked else " ", mark)]
        for column in self.columns:
            text, name = cell_of(row, column, self.limits, edited, glyphs)
            style = ground
            if name and not here:
                style = ground + self.get_component_rich_style(f"table--{name}", partial=True)
            runs += ((text, style), (" ", ground))
        return runs


class DatasetHeader(CellWidget):
    """The columns' headings; a click on one sorts by it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"header--sorted"}

    @dataclass
    class Pressed(Message):
        """A heading was clicked; ``key`` is what to sort by."""

        key: str

    def __init__(self) -> None:
        super().__init__()
        self.sort, self.descending, self.tokens, self.longest = "name", False, True, 0

    def content_key(self) -> Hashable:
        """The order, and which columns there are."""
        return self.sort, self.descending, self.tokens, self.longest

    def show_order(self, sort: str, descending: bool, tokens: bool, longest: int) -> None:
        """Name the table's columns, and mark the one that it is sorted by."""
        order = sort, descending, tokens, longest
        if order != self.content_key():
            self.sort, self.descending, self.tokens, self.longest = order
            self.refresh()

    def columns(self, width: int) -> tuple[Column, ...]:
        """The table's columns."""
        return columns_for(max(0, width - BAR), self.tokens, self.longest, extra_of(self.sort))

    def on_click(self, event: Click) -> None:
        """Sort by the column under the pointer."""
        for column in self.columns(self.size.width):
            if column.left <= event.x <= column.left + column.width:
                self.post_message(self.Pressed(column.key))

    def paint(self, width: int, height: int) -> list[Strip]:
        """All headings."""
        plain = self.rich_style
        runs: list[Run] = [(" " * CURSOR, plain)]
        for column in self.columns(width):
            style = self.style_of("header--sorted") if column.key == self.sort else plain
            runs += ((label_of(column, self.sort, self.descending, self.glyphs), style), (" ", plain))
        return [strip_of(runs, width, plain)]


class DatasetNote(CellWidget):
    """What is wrong, in words, and what to do about it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"note--warning", "note--error"}

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.severity = ""
        self.shorter = ""

    def content_key(self) -> Hashable:
        """The words."""
        return self.text, self.severity, self.shorter

    def tell(self, text: str, severity: str, shorter: str = "") -> None:
        """Show these words, or ``shorter`` ones where they do not fit; none clear the note."""
        told = text, severity, shorter
        if told != self.content_key():
            self.text, self.severity, self.shorter = told
            self.refresh()

    def paint(self, width: int, height: int) -> list[Strip]:
        """The words, wrapped; what does not fit ends in an ellipsis."""
        if not self.text:
            return []
        sign = self.glyphs.error if self.severity == "error" else self.glyphs.warning
        style = self.style_of(f"note--{self.severity}")
        lines = wrap(f"{sign} {self.text}", width)
        if len(lines) > height and self.shorter:
            lines = wrap(f"{sign} {self.shorter}", width)
        if len(lines) > height:
            dots = self.glyphs.ellipsis
            lines = [*lines[: height - 1], lines[height - 1][: width - len(dots)] + dots]
        return [strip_of([(line, style)], width, self.rich_style) for line in lines]
