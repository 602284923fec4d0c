"""The list of captions that an operation changes: a tick, the name, and what goes and what comes, in one line each.

:class:`ChangeList` draws the lines in sight, :class:`ChangeView` the change at the cursor in full. What goes stands
in ``[- -]``, what comes in ``{+ +}``: it must be told without colour too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import ClassVar

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.style import Style
from textual.binding import BindingType
from textual.strip import Strip

from engine.dataset.text_diff import Span, differences
from engine.text import safe_text
from tui.batch import Item
from tui.keys.batch import CHANGE_KEYS
from tui.keys.key import bindings
from tui.widgets.cells import CellWidget, Run, strip_of
from tui.widgets.line_list import LineList

NAME_CELLS = 24
BEFORE = 12
"""Cells shown before the first change of a caption whose line is too long."""

SHOWN = 2_000
"""Characters of a caption that are looked at for its line and its view: no terminal shows more."""

_MARKS = {"-": ("[-", "-]"), "+": ("{+", "+}"), "=": ("", "")}


@lru_cache(maxsize=512)
def spans_of(old: str, new: str) -> tuple[Span, ...]:
    """The differences, safe to show, with line breaks as a sign."""
    found = differences(old[:SHOWN], new[:SHOWN])
    return tuple(Span(span.sign, safe_text(span.text.replace("\n", " / "))) for span in found)


def marked(spans: Sequence[Span]) -> list[tuple[str, str]]:
    """Pieces to draw, each with the sign of its span."""
    return [(span.sign, f"{_MARKS[span.sign][0]}{span.text}{_MARKS[span.sign][1]}") for span in spans]


def cut(pieces: list[tuple[str, str]], width: int, dots: str) -> list[tuple[str, str]]:
    """Pieces for a line of ``width`` cells: where all do not fit, from shortly before the first change on."""
    if sum(cell_len(text) for _, text in pieces) <= width or not pieces or pieces[0][0] != "=":
        return pieces
    first = pieces[0][1]
    if cell_len(first) <= BEFORE:
        return pieces
    return [("=", dots + first[-BEFORE:].lstrip()), *pieces[1:]]


class ChangeList(LineList):
    """One line a caption."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(CHANGE_KEYS)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"change--out", "change--in"}

    def __init__(self) -> None:
        super().__init__("changes")
        self.items: Sequence[Item] = ()
        self.ticked = 0
        """How many are to be made."""

    @property
    def item(self) -> Item | None:
        """The change at the cursor."""
        return self.items[self.cursor] if self.cursor < len(self.items) else None

    def take(self, items: Sequence[Item], hint: str) -> None:
        """List these; the cursor stays at its picture where that is still listed."""
        here = self.item.row if self.item is not None else None
        self.items, self.ticked = items, sum(item.ticked for item in items)
        place = next((at for at, item in enumerate(items) if item.row is here), 0)
        self.show(len(items), place, hint)

    def action_tick(self) -> None:
        """Tick the change at the cursor, or take the tick away, and go on."""
        if self.item is not None:
            self.item.ticked = not self.item.ticked
            self.ticked += 1 if self.item.ticked else -1
            self.refresh()
            self.post_message(self.Moved(self))
            self.action_move(1)

    def action_tick_all(self) -> None:
        """Tick all; none where all are."""
        wanted = self.ticked < len(self.items)
        for item in self.items:
            item.ticked = wanted
        self.ticked = len(self.items) if wanted else 0
        self.refresh()
        self.post_message(self.Moved(self))

    def runs_of(self, index: int, ground: Style, width: int) -> list[Run]:
        """Tick, name, change."""
        item = self.items[index]
        name = safe_text(item.row.name, 200)
        cells = max(8, min(NAME_CELLS, width // 4))
        if cell_len(name) > cells:
            name = set_cell_size(name, cells - 1) + "~"
        dim = ground + self.get_component_rich_style("list--dim", partial=True)
        runs: list[Run] = [("[x] " if item.ticked else "[ ] ", ground), (set_cell_size(name, cells) + " ", dim)]
        pieces = cut(marked(spans_of(item.old, item.new)), width - cells - 5, "... ")
        return runs + [(text, self._style(sign, ground)) for sign, text in pieces]

    def _style(self, sign: str, ground: Style) -> Style:
        names = {"-": "change--out", "+": "change--in"}
        return ground + self.get_component_rich_style(names[sign], partial=True) if sign in names else ground


class ChangeView(CellWidget):
    """The change at the cursor, wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"change--out", "change--in"}

    def __init__(self) -> None:
        super().__init__()
        self._item: tuple[str, str] | None = None

    def tell(self, item: Item | None) -> None:
        """Show this one."""
        shown = (item.old, item.new) if item is not None else None
        if shown != self._item:
            self._item = shown
            self.refresh()

    def content_key(self) -> Hashable:
        """The texts."""
        return self._item

    def paint(self, width: int, height: int) -> list[Strip]:
        """The pieces, broken where the lines end."""
        if self._item is None or width < 8:
            return []
        lines: list[list[Run]] = [[]]
        left = width
        names = {"-": "change--out", "+": "change--in"}
        for sign, text in marked(spans_of(*self._item)):
            style = self.style_of(names[sign]) if sign in names else self.rich_style
            for word in _pieces(text):
                cells = cell_len(word)
                if cells > left and left < width:
                    lines.append([])
                    left, word = width, word.lstrip()
                    cells = cell_len(word)
                first, *more = chop_cells(word, width) or [""]
                lines[-1].append((first, style))
                left -= cell_len(first)
                for piece in more:
                    lines.append([(piece, style)])
                    left = width - cell_len(piece)
        return [strip_of(runs, width, self.rich_style) for runs in lines[:height]]


def _pieces(text: str) -> list[str]:
    """Words, each with the space before it."""
    words = text.split(" ")
    return [word if not number else f" {word}" for number, word in enumerate(words)]
