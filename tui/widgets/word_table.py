"""The list of tags or words in a row: in how many captions each is, as a number, a part and a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from textual.binding import BindingType

from engine.dataset.frequencies import Frequency
from engine.text import safe_text
from tui.keys.batch import WORD_LIST_KEYS
from tui.keys.key import bindings
from tui.widgets.cells import Run, glyphs_of
from tui.widgets.line_list import LineList

BAR_CELLS = 20
LEAST_WIDTH = 60
"""Cells from which there is room for the bar."""


class WordTable(LineList):
    """One line for each."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(WORD_LIST_KEYS)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"word--bar", "word--said"}

    def __init__(self) -> None:
        super().__init__("words")
        self.found: Sequence[Frequency] = ()
        self.captions = 0

    @property
    def chosen(self) -> Frequency | None:
        """The one at the cursor."""
        return self.found[self.cursor] if self.cursor < len(self.found) else None

    def take(self, found: Sequence[Frequency], captions: int, hint: str) -> None:
        """List these, counted in so many captions; the cursor stays where it was if that is still listed."""
        here = self.chosen.words if self.chosen is not None else ""
        self.found, self.captions = found, captions
        place = next((at for at, each in enumerate(found) if each.words == here), 0)
        self.show(len(found), place, hint)

    def runs_of(self, index: int, ground: Style, width: int) -> list[Run]:
        """Count, part, bar, words, and the two counts that mean most."""
        each = self.found[index]
        part = each.count / max(1, self.captions)
        runs: list[Run] = [(f"{each.count:>7,} {part:>5.0%} ", ground)]
        if width >= LEAST_WIDTH:
            style = ground + self.get_component_rich_style("word--bar", partial=True)
            filled = max(1, round(part * BAR_CELLS))
            sign = "#" if getattr(self.app, "ascii_terminal", False) else "━"
            runs.append((sign * filled + " " * (BAR_CELLS - filled + 1), style))
        said = ""
        if self.captions > 1 and each.count in (1, self.captions):
            said = "  only one" if each.count == 1 else "  every one"
        room = width - sum(cell_len(text) for text, _ in runs) - len(said)
        words = safe_text(each.words, 300)
        if cell_len(words) > room:
            words = set_cell_size(words, max(0, room - 1)) + glyphs_of(self.app).ellipsis[:1]
        runs.append((words, ground))
        if said:
            runs.append((said, ground + self.get_component_rich_style("word--said", partial=True)))
        return runs
