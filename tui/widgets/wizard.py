"""The wizard's own controls: a setting that was chosen for the machine, a button in a line, the row of pages."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click, Key
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.keys.key import bindings
from tui.keys.setup import FIELD_KEYS
from tui.keys.wizard import ACT_KEYS, VALUE_KEYS
from tui.widgets.cells import CellWidget, Run, strip_of
from tui.widgets.fields import Choice

TYPING_S = 1.2
"""Digits that follow each other within this time make one number."""


class FitValue(Choice):
    """A setting that the solver chose: as a choice, with digits for numbers, and a key that gives it back."""

    BINDINGS = bindings(VALUE_KEYS)

    @dataclass
    class GivenBack(Message):
        """The solver shall choose this one again."""

        choice: FitValue

        @property
        def control(self) -> FitValue:
            """The sender."""
            return self.choice

    def __init__(self, key: str, options: tuple[tuple[str, str], ...], value: str, fixed: bool) -> None:
        super().__init__(options, value, name_of(key))
        self.key = key
        self.fixed = fixed
        self._digits, self._typed_at = "", 0.0

    def tell(self, options: tuple[tuple[str, str], ...], value: str, fixed: bool) -> None:
        """Show what was chosen; ``fixed`` by the user."""
        self.options = options
        if fixed != self.fixed:
            self.fixed = fixed
            self.refresh()
        self.value = value

    def render(self) -> Content:
        """The value, and a word where it is the user's."""
        return Content.assemble(super().render(), ("  * yours", "$text-warning") if self.fixed else "")

    def action_give_back(self) -> None:
        """Have it chosen again."""
        self.post_message(self.GivenBack(self))

    def on_key(self, event: Key) -> None:
        """Digits make a number, where the setting is one."""
        if event.character is None or not event.character.isdecimal() or not event.character.isascii():
            return
        values = [value for value, _ in self.options]
        now = monotonic()
        begun = self._digits if now - self._typed_at < TYPING_S else ""
        for digits in (begun + event.character, event.character):
            if digits in values:
                event.stop()
                self._digits, self._typed_at = digits, now
                self.take(digits)
                return


def name_of(key: str) -> str:
    """The field's name of a setting with a dotted key."""
    return f"fit-{key.replace('.', '-')}"


class Act(Widget, can_focus=True):
    """A button one line high: enter, space or a click presses it."""

    BINDINGS = bindings(FIELD_KEYS + ACT_KEYS)

    @dataclass
    class Pressed(Message):
        """It was pressed."""

        act: Act

        @property
        def control(self) -> Act:
            """The sender."""
            return self.act

    def __init__(self, what: str, label: str) -> None:
        super().__init__(id=f"act-{what}")
        self.what = what
        self._label = label

    def tell(self, label: str) -> None:
        """Call it otherwise. The text is safe to show."""
        if label != self._label:
            self._label = label
            self.refresh(layout=True)

    def render(self) -> Content:
        """The label in brackets, with a sign where the focus is."""
        return Content(f"{'>' if self.has_focus else ' '} [ {self._label} ]")

    def action_press(self) -> None:
        """Do it."""
        self.post_message(self.Pressed(self))

    def on_click(self, event: Click) -> None:
        """Do it."""
        self.action_press()


class Tabs(CellWidget):
    """The pages in a row, each with its state as a sign; a click goes there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tabs--here", "tabs--done", "tabs--mend", "tabs--open"}

    @dataclass
    class Chosen(Message):
        """A page was clicked."""

        number: int

    def __init__(self, titles: tuple[str, ...]) -> None:
        super().__init__(id="tabs")
        self._titles = titles
        self._here = 0
        self._states: tuple[str, ...] = ("open",) * len(titles)
        self._spans: list[tuple[int, int]] = []

    def tell(self, here: int, states: tuple[str, ...]) -> None:
        """Show another page's number, or other states."""
        if (here, states) != (self._here, self._states):
            self._here, self._states = here, states
            self.refresh()

    def content_key(self) -> Hashable:
        """Where one is, and the states."""
        return self._here, self._states

    def paint(self, width: int, height: int) -> list[Strip]:
        """One line; without the numbers where there is little room."""
        signs = {"done": self.glyphs.done, "mend": self.glyphs.warning, "open": self.glyphs.waiting}
        runs: list[Run] = [(" ", self.rich_style)]
        self._spans, at = [], 1
        for number, title in enumerate(self._titles):
            here, state = number == self._here, self._states[number]
            words = f"{'>' if here else ' '}{number + 1} {title} {signs[state]} "
            runs.append((words, self.style_of("tabs--here" if here else f"tabs--{state}")))
            self._spans.append((at, at + cell_len(words)))
            at += cell_len(words)
            if number + 1 < len(self._titles):
                gap = "  " if width >= 100 else ""
                runs.append((gap, self.rich_style))
                at += len(gap)
        return [strip_of(runs, width, self.rich_style)]

    def on_click(self, event: Click) -> None:
        """Go to the page under the pointer."""
        for number, (start, end) in enumerate(self._spans):
            if start <= event.x < end:
                self.post_message(self.Chosen(number))
