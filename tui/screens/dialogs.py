"""The small questions and answers over the run screen: stop, leave, error, help.

Every dialog is a modal screen that returns a plain value (a word, a number or None); the run screen turns it into a
command. Esc always leads out and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.validation import Integer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.events import RunFailed
from tui.keymap import ALL_KEYS
from tui.keymap import Key as KeyRow
from tui.safe import safe

ESCAPE: list[BindingType] = [Binding("escape", "close", "Back", id="dialog.close")]


@dataclass(frozen=True)
class Choice:
    """One answer: its id, the letter that takes it at once, and its words."""

    id: str
    letter: str
    text: str


class Dialog(ModalScreen[str | None]):
    """A framed box in the middle of the screen; esc closes it without an answer."""

    BINDINGS = ESCAPE

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
            yield OptionList(*options, markup=False)
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
    """What failed, in the words of the error: title, detail, hint."""

    BINDINGS: ClassVar[list[BindingType]] = [*ESCAPE, Binding("enter,space,q", "close", "Close", id="dialog.accept")]

    def __init__(self, failure: RunFailed, log_path: str) -> None:
        super().__init__()
        self._failure = failure
        self._log_path = log_path

    def compose(self) -> ComposeResult:
        """The error and where its traceback is."""
        failure = self._failure
        with VerticalScroll(classes="box -error"):
            yield Static(safe(f"The run failed: {failure.title}"), classes="title")
            if failure.detail:
                yield Static(safe(failure.detail, newlines=True), classes="detail")
            if failure.hint:
                yield Static(safe(f"Try: {failure.hint}", newlines=True), classes="hint")
            where = f"Traceback: {self._log_path}.  " if self._log_path else ""
            yield Static(safe(f"{where}esc closes this; q then leaves"), classes="foot")


class HelpDialog(Dialog):
    """All keys, by group, and how to read the curve."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *ESCAPE,
        Binding("q,question_mark,f1", "close", "Close", id="dialog.accept"),
    ]

    def compose(self) -> ComposeResult:
        """Groups of keys in two columns of text."""
        with VerticalScroll(classes="box -wide"):
            yield Static(safe("Keys"), classes="title")
            yield Static(_key_table(ALL_KEYS), classes="detail")
            yield Static(safe("Reading the loss"), classes="title")
            yield Static(safe(READING, newlines=True), classes="detail")
            yield Static(safe("esc to go back; shift and drag selects text in most terminals"), classes="foot")


READING = (
    "One step's loss depends mostly on the noise level drawn for it, so the dim points scatter widely and stay "
    "scattered. The bright line is their moving average: while it falls, the model learns; flat for long, it has "
    "learned what it will. Trust the samples more than the curve: stop when they show the concept and still follow "
    "their prompts. Marks on the axis are epochs, on a long run some of them; a filled one has a saved file."
)


def _key_table(keys: tuple[KeyRow, ...]) -> Content:
    lines: list[Content] = []
    group = ""
    for key in keys:
        if key.group != group:
            group = key.group
            lines.append(Content.styled(("\n" if lines else "") + group, "bold"))
        names = ", ".join(_shown(key))
        lines.append(Content.assemble((f"  {names:<14}", "$text-accent"), key.help))
    return Content("\n").join(lines)


def _shown(key: KeyRow) -> list[str]:
    """Keys as people call them; the second spelling of a shifted letter is left out."""
    names = {"question_mark": "?", "left_square_bracket": "[", "right_square_bracket": "]", "colon": ":"}
    return [names.get(name, name) for name in key.keys.split(",") if not name.startswith("shift+")]
