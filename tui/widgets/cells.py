"""The base of widgets that draw their own cells: strips painted once and kept until something they show changes.

A subclass says what its picture depends on (:meth:`CellWidget.content_key`) and how it is painted
(:meth:`CellWidget.paint`). The key also holds size, theme and colours: strips kept by size alone would show the old
theme's background. Every cell is styled, because Textual's colour filters cannot take a segment without a style.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.view import RunView

if TYPE_CHECKING:
    from textual.app import App

Run = tuple[str, Style]


def glyphs_of(app: App[Any]) -> Glyphs:
    """The signs that ``app`` draws with."""
    return ASCII if getattr(app, "ascii_terminal", False) else UNICODE


def strip_of(runs: Sequence[Run], width: int, blank: Style) -> Strip:
    """A strip of exactly ``width`` cells from styled text, cut or filled with ``blank``."""
    segments: list[Segment] = []
    left = width
    for text, style in runs:
        cells = cell_len(text)
        if cells > left:
            text, cells = set_cell_size(text, left), left
        if text:
            segments.append(Segment(text, style))
        left -= cells
        if left <= 0:
            break
    if left > 0:
        segments.append(Segment(" " * left, blank))
    return Strip(segments, width)


def wrap(text: str, width: int) -> list[str]:
    """Cut ``text`` into pieces of at most ``width`` cells, at spaces where there are some."""
    rows = [""]
    for word in text.split(" "):
        joined = f"{rows[-1]} {word}" if rows[-1] else word
        if cell_len(joined) <= width:
            rows[-1] = joined
            continue
        pieces = chop_cells(word, width) or [""]
        rows[-1:] = [rows[-1], *pieces] if rows[-1] else pieces
    return rows


class CellWidget(Widget):
    """A widget painted as strips from a :class:`~tui.view.RunView`."""

    TOPICS: frozenset[str] = frozenset()
    """The topics of :mod:`tui.bridge` on which the picture can change."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.view = RunView()
        self.paints = 0
        self._strips: list[Strip] = []
        self._key: Hashable = None
        self._asked: Hashable = None

    @property
    def glyphs(self) -> Glyphs:
        """The signs to draw with."""
        return glyphs_of(self.app)

    def show(self, view: RunView) -> None:
        """Take the newest state and ask for a repaint if the picture depends on what changed."""
        self.view = view
        key = self._full_key()
        # Not compared with what was painted last: a repaint of a part (under a toast) may already be newer than the
        # lines that Textual keeps of the rest.
        if key != self._asked:
            self._asked = key
            self.refresh()

    def content_key(self) -> Hashable:
        """All that the picture depends on besides size and theme."""
        raise NotImplementedError

    def paint(self, width: int, height: int) -> list[Strip]:
        """Draw the picture: up to ``height`` strips of ``width`` cells."""
        raise NotImplementedError

    def style_of(self, name: str) -> Style:
        """The style of one of the widget's component classes, without what the parent's text style adds."""
        return self.get_component_rich_style(name)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Paint anew if something changed, once for all lines, then cut out what is asked for."""
        key = self._full_key()
        if key != self._key:
            self._strips = self.paint(self.size.width, self.size.height)
            self._key = key
            self.paints += 1
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """The kept strip of line ``y``."""
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.rich_style)

    def _full_key(self) -> Hashable:
        return (
            self.size,
            self.app.theme,
            self.rich_style,
            getattr(self.app, "ascii_terminal", False),
            self.content_key(),
        )
