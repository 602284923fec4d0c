"""The small questions and answers over a screen: a choice, an epoch, an error.

Every dialog is a modal screen that returns a plain value (a word, a number or None); who opened it turns it into a
command. Esc always leads out and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.validation import Integer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.error_text import Told, what_to_do
from tui.keys.dialogs import DIALOG_KEYS, ERROR_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.symptoms import symptom_of
from tui.widgets.marked_list import MarkedList

if TYPE_CHECKING:
    from tui.habits import Habits


@dataclass(frozen=True)
class Choice:
    """One answer: its id, the letter that takes it at once, and its words."""

    id: str
    letter: str
    text: str


class Dialog(ModalScreen[str | None]):
    """A framed box in the middle of the screen; esc closes it without an answer."""

    BINDINGS = bindings(DIALOG_KEYS)

    def action_close(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


class ChoiceDialog(Dialog):
    """A question with a few answers: arrows and enter, or the answer's letter."""

    def __init__(self, title: str, detail: str, choices: list[Choice]) -> None:
        super().__init__()
        self._title = title
        self._detail = detail
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Title, detail and the answers."""
        with Vertical(classes="box"):
            yield Static(safe(self._title), classes="title")
            if self._detail:
                yield Static(safe(self._detail, newlines=True), classes="detail")
            options = (Option(safe(f"{choice.letter}  {choice.text}"), id=choice.id) for choice in self._choices)
            yield MarkedList(*options, markup=False)
            yield Static(safe("enter or letter to choose, esc to go back"), classes="foot")

    def on_mount(self) -> None:
        """Arrows work at once."""
        self.query_one(OptionList).focus()

    def on_key(self, event: Key) -> None:
        """A letter takes its answer."""
        for choice in self._choices:
            if event.character == choice.letter and self.is_current:
                event.stop()
                self.dismiss(choice.id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or click takes the answer."""
        self.dismiss(event.option_id)


class EpochDialog(Dialog):
    """Asks for an epoch's number; returns it as text, checked to lie in the range."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self._first = first
        self._last = max(first, last)

    def compose(self) -> ComposeResult:
        """Title and a number field."""
        with Vertical(classes="box"):
            yield Static(safe("Stop at the end of epoch"), classes="title")
            yield Input(
                value=str(self._first),
                type="integer",
                validators=[Integer(minimum=self._first, maximum=self._last)],
            )
            yield Static(safe(f"{self._first} to {self._last}, enter to plan, esc to go back"), classes="foot")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A number in the range is the answer; any other stays for correction."""
        if event.validation_result is None or event.validation_result.is_valid:
            self.dismiss(event.value)


class ErrorDialog(Dialog):
    """What failed, in the words of the error: title, detail, and always what to do."""

    BINDINGS = bindings(ERROR_KEYS)

    def __init__(self, error: Told, log_path: str = "", heading: str = "") -> None:
        super().__init__()
        self._error = error
        self._log_path = log_path
        self._heading = heading
        self._symptom = symptom_of(error.title)

    def compose(self) -> ComposeResult:
        """The error, where its traceback is, and the keys."""
        error = self._error
        with VerticalScroll(classes="box -error"):
            yield Static(safe(self._title), classes="title")
            if error.detail:
                yield Static(safe(error.detail, newlines=True), classes="detail")
            yield Static(safe(f"Try: {what_to_do(error)}", newlines=True), classes="hint")
            if self._log_path:
                yield Static(safe(f"Traceback: {self._log_path}"), classes="foot")
            guide = "? opens the guide to it, " if self._symptom is not None else ""
            yield Static(safe(f"{guide}y copies this text, esc closes it"), classes="foot")

    @property
    def _title(self) -> str:
        return f"{self._heading}: {self._error.title}" if self._heading else self._error.title

    def action_copy(self) -> None:
        """Copy the whole text."""
        error = self._error
        parts = (self._title, error.detail, what_to_do(error), self._log_path)
        cast("Habits", self.app).copy_words("\n".join(part for part in parts if part), "the error")

    def action_guide(self) -> None:
        """Close, and open the guide to trouble where it tells of this."""
        symptom, app = self._symptom, cast("Habits", self.app)
        if symptom is not None:
            self.dismiss(None)
            app.call_later(app.action_help, symptom.id)
