"""The field that a caption is typed in: Textual's text area, made safe for foreign text and for what others paste.

What the terminal would obey or cannot show is drawn as a replacement mark and kept in the text as it is. Anything
pasted becomes one line. Bindings come from a table, so that a user can change them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.document._history import EditHistory
from textual.widgets import TextArea

from engine.dataset.captions import MAX_CAPTION_BYTES
from tui.keys.caption import EDITOR_KEYS
from tui.keys.key import bindings
from tui.safe import REPLACEMENT, neutral

UNDO_STEPS = 200
_BREAKS = re.compile(r"[\t ]*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+[\t ]*")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_WIDTH = "\u034f"
"""Takes no cell, joins nothing, and no terminal obeys it (U+034F)."""


class CaptionEditor(TextArea, inherit_bindings=False):
    """One caption's text. :meth:`load` shows another one together with its history."""

    BINDINGS = bindings(EDITOR_KEYS)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"caption-editor--cut"}

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, soft_wrap=True, show_line_numbers=False, tab_behavior="focus")
        self.highlight_cursor_line = False  # a caption is one line for the most part
        self.cursor_blink = False  # over a slow link each blink is a frame
        self._cut: int | None = None

    def load(self, text: str, history: Any, cursor: tuple[int, int]) -> Any:
        """Show another text with the history that belongs to it, a new one when None; returns the history."""
        self.history = fresh = _new_history()  # loading clears the history that is there
        self.load_text(text)
        self.history = history if history is not None else fresh
        self.mark_cut(None)
        self.move_cursor(self.clamp_visitable(cursor) if cursor != (0, 0) else self.document.end)
        return self.history

    def take(self, text: str) -> None:
        """Make the text another one by one edit, which can be undone; the cursor stays where it can."""
        if text == self.text:
            return
        at = self.cursor_location
        self.history.checkpoint()
        self.replace(text, self.document.start, self.document.end, maintain_selection_offset=False)
        self.history.checkpoint()
        self.move_cursor(self.clamp_visitable(at))

    def mark_cut(self, at: int | None) -> None:
        """Underline the text from character ``at`` on: that much the model does not read."""
        if at != self._cut:
            self._cut = at
            self._line_cache.clear()
            self.refresh()

    def get_line(self, line_index: int) -> Text:
        """One line as it may be drawn, character for character as long as the text's."""
        raw = self.document.get_line(line_index)
        line = Text(drawable(raw), end="", no_wrap=True)
        if self._cut is not None:
            before = sum(len(self.document.get_line(row)) + 1 for row in range(line_index))
            if self._cut < before + len(raw):
                line.stylize(self.get_component_rich_style("caption-editor--cut"), max(0, self._cut - before))
        return line

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Enter is text too: no other command of that key is offered."""
        return (key == "enter" and not self.read_only) or super().check_consume_key(key, character)

    def _replace_via_keyboard(self, insert: str, start: Any, end: Any) -> Any:
        """What is typed or pasted; of a paste, one line."""
        if len(insert) > 1:
            cut = one_line(insert, MAX_CAPTION_BYTES)
            if len(insert) > MAX_CAPTION_BYTES:
                self.app.notify("Only the first 64 kB were pasted: more is no caption", severity="warning")
            insert = cut
        return super()._replace_via_keyboard(insert, start, end)


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


def _new_history() -> EditHistory:
    return EditHistory(max_checkpoints=UNDO_STEPS, checkpoint_timer=2.0, checkpoint_max_characters=100)
