"""The setup form on the screen: its fields, what is said under them, and the configuration beside them.

The look of :class:`tui.screens.setup.SetupScreen`; the fields are :mod:`tui.screens.form_fields`', the commands the
screen's.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus, Resize
from textual.widgets import Static

from engine.text import safe_text
from tui.safe import safe
from tui.screens.form_writing import FormWriting
from tui.setup.fields import FIELDS, GROUPS
from tui.setup.notes import steps_line
from tui.widgets.cells import glyphs_of
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice

WIDE = 130
"""Columns from which form and configuration stand side by side."""


class FormView(FormWriting):
    """The form without its commands."""

    def compose(self) -> ComposeResult:
        """Head, form beside configuration, steps, help of the field, keys."""
        yield Static(id="head")
        with Horizontal(id="body"):
            with VerticalScroll(id="form", can_focus=False):
                for number, group in enumerate(GROUPS):
                    yield Static(safe(group.title), classes="group" if number else "group -first")
                    for field in group.fields:
                        yield self.row(field)
            with VerticalScroll(id="side"):
                yield Static(id="toml")
        yield Static(id="steps")
        yield Static(id="hint")
        yield Notice()
        yield KeyLine()

    def on_resize(self, event: Resize) -> None:
        """Side by side or one at a time."""
        self._lay_out(event.size.width)

    def _lay_out(self, width: int) -> None:
        self.set_class(width < WIDE, "-narrow")
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The other page is worth a key only where one is shown at a time."""
        return self.has_class("-narrow") if action == "preview" else True

    def looked(self) -> None:
        """Show notes, steps and configuration as they are now known."""
        if not self.is_mounted:
            return
        self.show_notes()
        self.show_in("#head", self._head())
        self.show_in("#steps", safe(steps_line(self), 400))
        self.show_in("#toml", toml_content(self.checked.text, self.form.path.name))

    def _head(self) -> Content:
        count = len(self.to_mend) + len(self.checked.others)
        state, style = "ready: F5 starts", "bold $text-success"
        if count:
            state, style = f"! {count} to mend: F7 goes there", "bold $text-error"
        elif self.busy:
            state, style = "looking...", "$foreground-muted"
        where, room = safe_text(self.form.folder, 200), max(12, self.app.size.width - len(state) - 18)
        if len(where) > room:  # the end tells folders apart, and what is to mend must be in sight
            where = glyphs_of(self.app).ellipsis + where[-room:]
        return Content.assemble(("New run", "bold"), "  ", (where, "$foreground-muted"), "   ", (state, style))

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Say what the field is for."""
        name = (event.widget.id or "").removeprefix("field-")
        text = FIELDS[name].help if name in FIELDS else "arrows scroll; F2 goes back to the form"
        self.show_in("#hint", safe(text))


def toml_content(text: str, name: str, commands: tuple[str, ...] = ()) -> Content:
    """The configuration with its headings set off, under the command that trains it, or several."""
    told = commands or (f"kiln train {safe_text(name, 100)} --ui",)
    lines = [*(Content.assemble(("$ ", "$foreground-muted"), command) for command in told), Content("")]
    for line in text.splitlines():
        style = "bold $text-accent" if line.startswith("[") else "$foreground-muted" if line.startswith("#") else ""
        lines.append(safe(line, 400, style=style))
    return Content("\n").join(lines)
