"""The question when a caption was changed by another program while the user edited it: both texts, and what to do."""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.events import Key
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.safe import safe
from tui.screens.dialogs import Choice, Dialog
from tui.widgets.marked_list import MarkedList

QUIET_S = 0.6
"""Keys in this time after the dialog came up, or after another such key, were meant for the text."""

CHOICES = (
    Choice("mine", "m", "Keep mine: write it over the file"),
    Choice("theirs", "t", "Take the file's; mine comes back with undo"),
    Choice("later", "l", "Decide later; nothing is written until then"),
)


class ConflictDialog(Dialog):
    """Shows both texts; returns "mine", "theirs" or "later" (None with esc means later too)."""

    def __init__(self, name: str, mine: str, theirs: str | None) -> None:
        super().__init__()
        self._name = name
        self._mine = mine
        self._theirs = theirs
        self._last_key = time.monotonic()

    def compose(self) -> ComposeResult:
        """What happened, both texts, the answers."""
        gone = "(the file was removed)" if self._theirs is None else "(empty)"
        with Vertical(classes="box -wide"):
            yield Static(safe("The caption was changed by another program"), classes="title")
            yield Static(safe(self._name), classes="detail")
            yield Static(safe("In the file now"), classes="hint")
            with VerticalScroll(classes="text", can_focus=False):
                yield Static(safe(self._theirs or gone, 8000, newlines=True))
            yield Static(safe("Mine, not saved"), classes="hint")
            with VerticalScroll(classes="text", can_focus=False):
                yield Static(safe(self._mine or "(empty)", 8000, newlines=True))
            options = (Option(safe(f"{choice.letter}  {choice.text}"), id=choice.id) for choice in CHOICES)
            yield MarkedList(*options, markup=False)
            yield Static(safe("enter or letter to choose, esc to decide later"), classes="foot")

    def on_mount(self) -> None:
        """Arrows work at once; enter on the first answer would write, so the last one is offered."""
        answers = self.query_one(OptionList)
        answers.highlighted = len(CHOICES) - 1
        answers.focus()
        self._last_key = time.monotonic()

    def on_key(self, event: Key) -> None:
        """A letter takes its answer, unless the user is still typing his caption."""
        typing = time.monotonic() - self._last_key < QUIET_S
        self._last_key = time.monotonic()
        for choice in CHOICES:
            if event.character == choice.letter and self.is_current:
                event.stop()
                if not typing:
                    self.dismiss(choice.id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or click takes the answer."""
        self.dismiss(event.option_id)
