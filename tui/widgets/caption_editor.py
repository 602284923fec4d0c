"""The field that a caption is typed in: Textual's text area, made safe for foreign text and for what others paste.

What the terminal would obey or cannot show is drawn as a replacement mark and kept in the text as it is. Anything
pasted becomes one line. Undo goes through the caption's own past, which outlives the field. Bindings come from a
table, so that a user can change them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.document._document import EditResult
from textual.document._document import Selection as Span
from textual.document._edit import Edit as TextEdit
from textual.document._history import EditHistory
from textual.widgets import TextArea

from engine.dataset.captions import MAX_CAPTION_BYTES
from engine.dataset.past import Edit, Past, difference
from tui.caption_template import next_slot
from tui.keys.caption import EDITOR_KEYS
from tui.keys.key import bindings
from tui.safe import REPLACEMENT, neutral

_BREAKS = re.compile(r"[\t ]*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+[\t ]*")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_WIDTH = "\u034f"
"""Takes no cell, joins nothing, and no terminal obeys it (U+034F)."""


@dataclass(frozen=True)
class Marks:
    """What of a text is drawn in another way, by its characters."""

    clip_cut: int | None = None
    """From here on CLIP reads no more."""
    t5_cut: int | None = None
    """From here on T5 reads no more, so nothing does."""
    misspelt: tuple[tuple[int, int], ...] = ()

    def after(self, edit: Edit) -> Marks:
        """The marks where the text has them after an edit, until it is looked at anew."""
        end, by = edit.at + len(edit.removed), len(edit.inserted) - len(edit.removed)

        def moved(at: int | None) -> int | None:
            return at if at is None or at < end else at + by

        words = ((start + by, stop + by) if start >= end else (start, stop) for start, stop in self.misspelt
                 if stop < edit.at or start > end)  # fmt: skip
        return Marks(moved(self.clip_cut), moved(self.t5_cut), tuple(words))


class CaptionEditor(TextArea, inherit_bindings=False):
    """One caption's text. :meth:`load` shows another one together with its past.

    Attributes:
        complete: what to offer behind the cursor, given the text before and behind it; empty for nothing.
        slots: what counts as a slot to be filled in.
    """

    BINDINGS = bindings(EDITOR_KEYS)
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "caption-editor--cut", "caption-editor--clip-cut", "caption-editor--misspelt",
    }  # fmt: skip

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        self._typing = False
        self._quiet = False
        self.past: Past | None = None
        super().__init__(id=id, soft_wrap=True, show_line_numbers=False, tab_behavior="focus")
        self.history = _NoHistory(self)
        self.highlight_cursor_line = False  # a caption is one line for the most part
        self.cursor_blink = False  # over a slow link each blink is a frame
        self.marks = Marks()
        self.complete: Callable[[str, str], str] = lambda before, after: ""
        self.slots: frozenset[str] = frozenset()

    @property
    def cursor_at(self) -> int:
        """The character before which the cursor stands."""
        return self._at(self.cursor_location)

    def load(self, text: str, past: Past | None, cursor: tuple[int, int]) -> None:
        """Show another text with the past that belongs to it; None for one that cannot be edited."""
        self.past = past
        self.load_text(text)
        self.mark(Marks())
        self.move_cursor(self.clamp_visitable(cursor) if cursor != (0, 0) else self.document.end)

    def take(self, text: str) -> None:
        """Make the text another one by one edit, which can be undone; the cursor stays where it can."""
        if text == self.text:
            return
        at = self.cursor_location
        self.replace(text, self.document.start, self.document.end, maintain_selection_offset=False)
        self.move_cursor(self.clamp_visitable(at))

    def mark(self, marks: Marks) -> None:
        """Draw these parts of the text in another way."""
        if marks != self.marks:
            self.marks = marks
            self._line_cache.clear()
            self.refresh()

    def select_span(self, start: int, end: int) -> None:
        """Select characters, and have them in sight."""
        self.selection = Span(self._location(start), self._location(end))
        self.scroll_cursor_visible()

    def get_line(self, line_index: int) -> Text:
        """One line as it may be drawn, character for character as long as the text's."""
        raw = self.document.get_line(line_index)
        line = Text(drawable(raw), end="", no_wrap=True)
        if self.marks == Marks():
            return line
        before, marks = self._at((line_index, 0)), self.marks
        for name, cut in (("clip-cut", marks.clip_cut), ("cut", marks.t5_cut)):
            if cut is not None and cut < before + len(raw):
                line.stylize(self.get_component_rich_style(f"caption-editor--{name}"), max(0, cut - before))
        for start, end in marks.misspelt:
            if start < before + len(raw) and end > before:
                style = self.get_component_rich_style("caption-editor--misspelt")
                line.stylize(style, max(0, start - before), end - before)
        return line

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Enter is text too: no other command of that key is offered."""
        return (key == "enter" and not self.read_only) or super().check_consume_key(key, character)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where there is nothing to take or to fill in, tab is what it is everywhere."""
        if action == "complete":
            return not self.read_only and bool(self.suggestion or next_slot(self.text, 0, self.slots))
        return super().check_action(action, parameters)

    def action_complete(self) -> None:
        """Take what is offered behind the cursor; where nothing is, go to the next slot."""
        if self.suggestion:
            self.insert(self.suggestion)
        elif slot := next_slot(self.text, self.cursor_at, self.slots):
            self.select_span(*slot)

    def undo(self) -> None:
        """Take the last step back."""
        if self.past is not None and not self.read_only and (edit := self.past.undo()):
            self._show_past(Edit(edit.at, edit.inserted, edit.removed))

    def redo(self) -> None:
        """Do it again."""
        if self.past is not None and not self.read_only and (edit := self.past.redo()):
            self._show_past(edit)

    def edit(self, edit: TextEdit) -> EditResult:
        """Any change of the text but an undo: it becomes a part of the past."""
        before = self.text
        result = super().edit(edit)
        self.marks = self.marks.after(difference(before, self.text))
        if self.past is not None and not self._quiet:
            self.past.take(self.text, time.monotonic(), self._typing)
        return result

    def update_suggestion(self) -> None:
        """Offer something behind what was just typed, and nowhere else."""
        text, at = self.text, self.cursor_at
        self.suggestion = self.complete(text[:at], text[at:]) if self._typing else ""

    def watch_selection(self) -> None:
        """Who moves the cursor is not offered anything."""
        if not self._typing:
            self.suggestion = ""

    def _show_past(self, edit: Edit) -> None:
        """Have the text follow its past by the smallest edit; the cursor goes where it happened."""
        self._quiet = True
        start, end = self._location(edit.at), self._location(edit.at + len(edit.removed))
        self.replace(edit.inserted, start, end, maintain_selection_offset=False)
        self._quiet = False
        if self.past is not None and self.text != self.past.text:
            self.load_text(self.past.text)
        self.move_cursor(self._location(edit.at + len(edit.inserted)))

    def _at(self, location: tuple[int, int]) -> int:
        row, column = location
        return sum(len(self.document.get_line(line)) + 1 for line in range(row)) + column

    def _location(self, at: int) -> tuple[int, int]:
        before = self.text[:at]
        return before.count("\n"), at - (before.rfind("\n") + 1)

    def _replace_via_keyboard(self, insert: str, start: Any, end: Any) -> Any:
        """What is typed or pasted; of a paste, one line."""
        if len(insert) > 1:
            cut = one_line(insert, MAX_CAPTION_BYTES)
            if len(insert) > MAX_CAPTION_BYTES:
                self.app.notify("Only the first 64 kB were pasted: more is no caption", severity="warning")
            return super()._replace_via_keyboard(cut, start, end)
        self._typing = True
        result = super()._replace_via_keyboard(insert, start, end)
        self._typing = False
        return result

    def _delete_via_keyboard(self, start: Any, end: Any) -> Any:
        """Deleting by keys is typing too, as far as undo is concerned."""
        offer, self.complete = self.complete, lambda before, after: ""
        self._typing = True
        result = super()._delete_via_keyboard(start, end)
        self._typing, self.complete = False, offer
        return result


class _NoHistory(EditHistory):
    """In place of Textual's: it remembers nothing, and hands on where a burst of typing ends."""

    def __init__(self, editor: CaptionEditor) -> None:
        super().__init__(1, 0.0, 0)
        self._editor = editor

    def record(self, edit: TextEdit) -> None:
        """The past has it already."""

    def checkpoint(self) -> None:
        """The cursor was moved by hand, or the field left."""
        if self._editor.past is not None:
            self._editor.past.close()


def one_line(text: str, limit: int) -> str:
    """Pasted text as one line of at most ``limit`` characters, without control characters."""
    joined = _BREAKS.sub("\n", text[:limit]).strip("\n").replace("\n", " ")
    return _CONTROLS.sub("", joined)


def drawable(line: str) -> str:
    """``line`` with every character that a terminal could act on replaced by one that takes as many cells."""
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        char if char == "\t" or neutral(char) == char else REPLACEMENT if cell_len(char) else _NO_WIDTH
        for char in line
    )
