"""The base of long lists that draw only what is in sight: lines of one height, and a cursor on one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.widgets.cells import Run, strip_of

BAR = 1
"""Cells of the scroll bar, which is always there."""


class LineList(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines, however many; a subclass says how one looks (:meth:`runs_of`)."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"list--cursor", "list--dim", "list--hint"}

    @dataclass
    class Moved(Message):
        """The cursor stands elsewhere, or on something else."""

        sender: LineList

        @property
        def control(self) -> LineList:
            """The sender."""
            return self.sender

    @dataclass
    class Pressed(Message):
        """The mouse pressed the line at the cursor; ``x`` cells from its left, ``twice`` for a double click."""

        sender: LineList
        x: int
        twice: bool

        @property
        def control(self) -> LineList:
            """The sender."""
            return self.sender

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.count = 0
        self.cursor = 0
        self.hint = ""
        """Said where there are no lines."""

    def runs_of(self, index: int, ground: Style, width: int) -> list[Run]:
        """Line ``index``, after the cursor's sign."""
        raise NotImplementedError

    def show(self, count: int, cursor: int, hint: str = "") -> None:
        """There are so many lines now, with the cursor on one of them."""
        self.count, self.hint = count, hint
        self.cursor = max(0, min(cursor, count - 1))
        self._fit()
        self.refresh()
        self.post_message(self.Moved(self))

    def go(self, index: int) -> None:
        """Move the cursor, as far as there are lines."""
        index = max(0, min(index, self.count - 1))
        if index != self.cursor:
            self.cursor = index
            self._fit()
            self.refresh()
            self.post_message(self.Moved(self))

    def action_move(self, by: int) -> None:
        """Go some lines on or back."""
        self.go(self.cursor + by)

    def action_page(self, pages: int) -> None:
        """Go a page on or back."""
        self.go(self.cursor + pages * max(1, self.size.height - 1))

    def action_end(self, index: int) -> None:
        """Go to the first line, or the last."""
        self.go(index % max(1, self.count))

    def on_resize(self) -> None:
        """Another height: the cursor stays in sight."""
        self._fit()

    def on_click(self, event: Click) -> None:
        """The mouse moves the cursor; whoever shows the list hears of it."""
        index = event.y + self.scroll_offset.y
        if index < self.count:
            self.go(index)
            self.post_message(self.Pressed(self, event.x, event.chain > 1))

    def _fit(self) -> None:
        self.virtual_size = Size(max(0, self.size.width - BAR), self.count)
        height = self.size.height
        top = self.scroll_offset.y
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if height and wanted != top:
            self.scroll_to(y=wanted, animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        """One line, or the hint where there are none."""
        width = max(0, self.size.width - BAR)
        index = y + self.scroll_offset.y
        if index < self.count:
            here = index == self.cursor
            ground = self.get_component_rich_style("list--cursor") if here else self.rich_style
            return strip_of([(">" if here else " ", ground), *self.runs_of(index, ground, width - 1)], width, ground)
        if y == 1 and self.hint and not self.count:
            style = self.get_component_rich_style("list--hint")
            return strip_of([("  ", self.rich_style), (self.hint, style)], width, self.rich_style)
        return Strip.blank(width, self.rich_style)
