"""The line above the dataset's table in which a filter is typed, and what is said under it where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.suggester import Suggester
from textual.widgets import Input

from engine.dataset.query_fields import FIELDS
from engine.dataset.query_parse import QueryError
from engine.text import safe_text
from tui.keys.dataset import FILTER_KEYS
from tui.keys.key import bindings
from tui.widgets.cells import CellWidget, strip_of, wrap

LONGEST_FILTER = 200
FAULT_LINES = 2
_BEGUN = re.compile(r"(?:^|[\s(-])([a-z]{2,})$", re.IGNORECASE)


class FieldNames(Suggester):
    """Completes the name of a field that is begun; the right arrow takes it."""

    async def get_suggestion(self, value: str) -> str | None:
        """``value`` with the first name that its last word begins."""
        return completed(value)


def completed(value: str) -> str | None:
    """``value`` with the name of the first field that its last word begins; None where it begins none."""
    begun = _BEGUN.search(value)
    name = next((name for name in FIELDS if begun and name.startswith(begun[1].lower())), None)
    return f"{value[: begun.start(1)]}{name}:" if begun and name else None


class FilterInput(Input):
    """The words to look for. enter goes to what was found, esc clears and then leaves."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(FILTER_KEYS)
    HELP_PAGE = "filter"

    class Left(Message):
        """The user is done with the filter; ``cleared`` when they gave it up."""

        def __init__(self, cleared: bool) -> None:
            super().__init__()
            self.cleared = cleared

    def __init__(self, words: str) -> None:
        super().__init__(
            safe_text(words, LONGEST_FILTER),
            placeholder="words -word tag:cat tokens:>77; f1 has more",
            compact=True,
            max_length=LONGEST_FILTER,
            select_on_focus=False,
            suggester=FieldNames(case_sensitive=True),
        )

    def insert(self, text: str, index: int) -> None:
        """Type or paste ``text``, made safe to show."""
        super().insert(safe_text(text, LONGEST_FILTER), index)

    def replace(self, text: str, start: int, end: int) -> None:
        """Paste ``text`` over what is selected, made safe to show."""
        super().replace(safe_text(text, LONGEST_FILTER), start, end)

    def allow_focus(self) -> bool:
        """Only in sight: keys must not vanish into words that nobody sees."""
        return bool(self.display) and super().allow_focus()

    def action_done(self) -> None:
        """Go to the pictures."""
        self.post_message(self.Left(cleared=not self.value))

    def action_clear(self) -> None:
        """Clear the words; leave when there are none."""
        if self.value:
            self.value = ""
        else:
            self.post_message(self.Left(cleared=True))


class FilterFault(CellWidget):
    """What is wrong with the filter, and under which of its characters."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"fault--words"}

    def __init__(self) -> None:
        super().__init__()
        self.fault: QueryError | None = None
        self.scrolled = 0

    def content_key(self) -> Hashable:
        """Place and words."""
        return (self.fault.column, self.fault.said, self.scrolled) if self.fault is not None else None

    def tell(self, fault: QueryError | None, scrolled: int) -> None:
        """Show what is wrong, with the filter ``scrolled`` so many cells to the left; nothing where it is right."""
        self.fault, self.scrolled = fault, scrolled
        self.display = fault is not None
        self.refresh()

    def paint(self, width: int, height: int) -> list[Strip]:
        """A mark under the place and the words under that; the words alone where they take all the lines."""
        if self.fault is None:
            return []
        lines = wrap(f"{self.glyphs.error} column {self.fault.column}: {self.fault.said}", width)
        place = self.fault.column - 1 - self.scrolled
        if len(lines) < FAULT_LINES and 0 <= place < width:
            lines.insert(0, " " * place + "^")
        style = self.style_of("fault--words")
        return [strip_of([(line, style)], width, self.rich_style) for line in lines[:height]]
