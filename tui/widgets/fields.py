"""The setup form's controls: a line of text, a choice, a few lines, and the row that names one and tells of it.

All are one cell high and need no frame, so that a whole form fits a small terminal. Up and down lead from field to
field, as tab does.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from engine.text import safe_text
from tui.keys.key import bindings
from tui.keys.setup import CHOICE_KEYS, FIELD_KEYS
from tui.safe import neutral, safe

MOST_NAMES = 5000
"""Names of a folder that are looked at for a completion."""


class Entry(Input):
    """A line of text without a frame."""

    BINDINGS = bindings(FIELD_KEYS)

    def __init__(self, value: str, name: str, empty: str = "", suggester: Suggester | None = None) -> None:
        super().__init__(value, empty, id=f"field-{name}", compact=True, select_on_focus=False, suggester=suggester)

    @property
    def _value(self) -> Text:
        """What is drawn: the value with a sign for every character that a terminal could act on."""
        return Text(neutral(self.value), no_wrap=True, overflow="ignore", end="")


class Lines(TextArea):
    """A few lines of text; the arrows leave it at its ends."""

    def __init__(self, value: str, name: str) -> None:
        super().__init__(value, id=f"field-{name}", compact=True, soft_wrap=True, tab_behavior="focus")

    def get_line(self, line_index: int) -> Text:
        """A line as it is drawn, with a sign for every character that a terminal could act on."""
        return Text(neutral(self.document.get_line(line_index)), end="", no_wrap=True)

    def action_cursor_up(self, select: bool = False) -> None:
        if self.cursor_location[0] == 0 and not select:
            self.screen.focus_previous()
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if self.cursor_location[0] == self.document.line_count - 1 and not select:
            self.screen.focus_next()
        else:
            super().action_cursor_down(select)


class Choice(Widget, can_focus=True):
    """One of a few values: left and right walk through them, enter shows them all."""

    BINDINGS = bindings(FIELD_KEYS + CHOICE_KEYS)

    value: reactive[str] = reactive("")

    @dataclass
    class Changed(Message):
        """Another value was taken by the user."""

        choice: Choice
        value: str

        @property
        def control(self) -> Choice:
            """The sender."""
            return self.choice

    @dataclass
    class PickWanted(Message):
        """All values should be shown to choose from."""

        choice: Choice

        @property
        def control(self) -> Choice:
            """The sender."""
            return self.choice

    def __init__(self, options: tuple[tuple[str, str], ...], value: str, name: str) -> None:
        super().__init__(id=f"field-{name}")
        self.options = options
        self.set_reactive(Choice.value, value)

    @property
    def label(self) -> str:
        """What the value is called."""
        return dict(self.options).get(self.value, self.value)

    def render(self) -> Content:
        """The value between the signs for more."""
        return Content.assemble(("< ", "$foreground-muted"), safe_text(self.label, 200), (" >", "$foreground-muted"))

    def take(self, value: str) -> None:
        """Change the value as the user does."""
        if value != self.value:
            self.value = value
            self.post_message(self.Changed(self, value))

    def action_step(self, by: int) -> None:
        """The next or previous value."""
        values = [value for value, _ in self.options]
        place = values.index(self.value) if self.value in values else 0
        self.take(values[(place + by) % len(values)])

    def action_pick(self) -> None:
        """Have all values shown."""
        self.post_message(self.PickWanted(self))

    def on_click(self, event: Click) -> None:
        """A click shows all values, one on a sign steps."""
        if event.x < 2:
            self.action_step(-1)
        elif len(self.label) + 2 <= event.x <= len(self.label) + 3:
            self.action_step(1)
        else:
            self.action_pick()


class FieldRow(Vertical):
    """A label, its control, and under them a note: what is wrong, or what was found."""

    def __init__(self, name: str, label: str, control: Entry | Lines | Choice) -> None:
        super().__init__(id=f"row-{name}", classes="field")
        self._label = label
        self._told: tuple[str, str] = ("", "")
        self.control = control

    def compose(self) -> ComposeResult:
        """Label and control side by side, the note below."""
        with Horizontal(classes="line"):
            yield Static(safe(self._label), classes="label")
            yield self.control
        yield Static(classes="note")

    # A class, because Textual does not style a row's parts anew when :focus-within comes or goes.

    def on_descendant_focus(self) -> None:
        """The label shows where one is."""
        self.add_class("-here")

    def on_descendant_blur(self) -> None:
        """The label is as the others."""
        self.remove_class("-here")

    def tell(self, text: str, kind: str = "") -> None:
        """Show a note; ``kind`` is "bad", "good", "changed" or "" for plain words."""
        if (text, kind) == self._told:
            return
        self._told = (text, kind)
        sign = {"bad": "! ", "changed": "> "}.get(kind, "")
        note = self.query_one(".note", Static)
        note.display = bool(text)
        note.set_classes(f"note -{kind}" if kind else "note")
        note.update(safe(sign + text, 600))
        self.set_class(kind == "bad", "-bad")

    @property
    def told(self) -> str:
        """The note that is shown."""
        return self._told[0]


class PathSuggester(Suggester):
    """Completes the name that is being typed from what stands in its folder; right arrow takes it.

    Args:
        work: where relative paths count from.
        ending: files that are offered besides folders; none when "".
    """

    def __init__(self, work: Path, ending: str = "") -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._work = work
        self._ending = ending

    async def get_suggestion(self, value: str) -> str | None:
        """The first name that goes on as typed."""
        return await asyncio.to_thread(self._complete, value)

    def _complete(self, value: str) -> str | None:
        head, _, start = value.rpartition("/")
        if not start:
            return None
        folder = self._work / (head or ("/" if value.startswith("/") else "."))
        try:
            with os.scandir(folder) as entries:
                listed = [entry for _, entry in zip(range(MOST_NAMES), entries, strict=False)]
                names = sorted(entry.name for entry in listed if self._offered(entry, start))
        except (OSError, ValueError):
            return None
        return value[: len(value) - len(start)] + names[0] if names else None

    def _offered(self, entry: os.DirEntry[str], start: str) -> bool:
        name = entry.name
        if not name.startswith(start) or name == start or safe_text(name) != name:
            return False
        return entry.is_dir() or (bool(self._ending) and name.endswith(self._ending))
